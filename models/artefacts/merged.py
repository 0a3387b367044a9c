"""The merged folder: Depth Anything's official layout, and weights as others have them.

`config.json` says what no file of weights says about itself; `model.safetensors` has
the official keys.
"""

from collections.abc import Mapping
from pathlib import Path

from datamodules.files.whole import whole_folder, write_json
from models.artefacts.base import fingerprint
from models.artefacts.depth_facts import said_in
from models.artefacts.families import network_to_dict
from models.artefacts.files import save_tensors
from models.artefacts.form import Asked, ExportOptions, Form, Opened
from models.artefacts.published import depth_anything_3
from models.artefacts.published.identity import (
    CONFIG_FILE,
    FORMAT,
    WEIGHTS_FILE,
    Identity,
    identify,
)
from models.artefacts.published.weights import check_built, load_weights
from models.networks import DepthNetwork
from models.networks.interface import Network, OutputSpec
from models.networks.presets import DESCRIBED, NetworkError, NetworkSpec


def save_network(
    network: Network, folder: Path, notes: Mapping[str, object] | None = None
) -> None:
    """Write `config.json` and `model.safetensors` with official keys.

    Args:
        network: A network without adapters.
        folder: Made if missing. Both files appear whole or not at all.
        notes: More entries for `config.json`, such as `image_size` and metrics.
    """
    config: dict[str, object] = {
        "format": FORMAT,
        "format_version": 1,
        **network_to_dict(type(network), network.spec),
        "sha256": fingerprint(network),
        **(notes or {}),
    }
    state, spec = network.state_dict(), network.spec
    if isinstance(spec, NetworkSpec) and spec.version == "v3":
        state = depth_anything_3.to_official(state)
        config[depth_anything_3.MODEL_NAME] = depth_anything_3.model_name(spec)
    with whole_folder(folder) as new:
        save_tensors(new / WEIGHTS_FILE, state)
        write_json(new / CONFIG_FILE, config)


class Merged(Form[Opened]):
    """Runs in Depth Anything's own code; here bit-equal."""

    name = "depth-anything"
    library = "lava-depth"
    language = "bash"
    usage = "python predict.py PHOTOGRAPHS --model {repo}  # LAVA Depth"
    tolerance = 0.0
    """Files of ours hold the same numbers."""

    def recognises(self, path: Path) -> bool:
        """Whatever has no other form: official files and folders, too."""
        return path.exists()

    def open(self, path: Path, asked: Asked) -> Opened:
        known = identify(path)
        family, spec = _network(path, known, asked.network)
        network = family(spec)
        load_weights(network, path)
        size = known.image_size or network.image_size
        shrink, said = known.image_shrink, said_in(path)
        return Opened(network, None, size, str(path), shrink, said)

    def write(self, opened: Opened, folder: Path, options: ExportOptions) -> None:
        size = options.image_size
        written = list(size) if isinstance(size, tuple) else size
        save_network(opened.adapted, folder, {"image_size": written, **opened.notes()})


FORM = Merged()


def _network(
    path: Path, known: Identity, text: str | None
) -> tuple[type[Network], OutputSpec]:
    if text is not None:
        spec = NetworkSpec.parse(text)
        known.check(str(path), spec, kind=True)
        return DepthNetwork, spec
    if known.family is not None and known.spec is not None:
        return known.family, known.spec
    if known.size is None or known.version is None or known.kind is None:
        check_built(path)
        raise NetworkError(
            f"{path} does not say what network it holds; give --network {DESCRIBED}"
        )
    return DepthNetwork, NetworkSpec(
        known.size,
        known.version,
        known.kind,
        known.max_depth,
        known.canonical_focal_px,
    )
