"""An adapter folder, as small as can be."""

from pathlib import Path

from models.adapters import Lava, adapt
from models.artefacts.adapter_folder import save_adapter
from models.artefacts.base import Base, fingerprint
from models.artefacts.depth_record import DepthRecord
from models.artefacts.merged import save_network
from tests.conftest import random_tiny


def save_adapted(base_folder: Path, folder: Path) -> None:
    """An adapter in `folder`, on a random network in `base_folder`."""
    save_network(random_tiny(), base_folder)
    network = random_tiny()
    base = Base(str(base_folder))
    base.fill(network)
    config = Lava(rank=2)
    record = DepthRecord(
        network=network.spec,
        image_size=(28, 42),
        base=base,
        base_sha256=fingerprint(network),
        adapter=config,
    )
    adapt(network, config)
    save_adapter(network, record, folder)
