"""Where training began is recorded so that it can be found again."""

import torch

from models import DepthAnythingModule
from models.adapters import Lava
from models.artefacts.depth_record import DepthRecord
from models.artefacts.merged import save_network
from models.artefacts.published.sources import commit_of
from tests.conftest import random_tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_base__has_the_commit_that_the_hub_gave(tmp_path, monkeypatch):
    """A name may mean other weights tomorrow, and a branch too."""
    folder = tmp_path / f"models--me--rooms/snapshots/{COMMIT}"
    save_network(random_tiny(), folder)
    monkeypatch.setattr("models.artefacts.base.locate", lambda source: folder)
    module = DepthAnythingModule(
        80.0, (28, 42), size="tiny", weights="me/rooms@main", adapter=Lava(rank=2)
    )
    base = DepthRecord.from_dict(module.record.to_dict()).base
    assert (base.weights, base.commit) == ("me/rooms@main", COMMIT)


def test_commit__is_of_the_hubs_cache_alone(tmp_path):
    torch.save({}, tmp_path / "weights.pth")
    assert commit_of(tmp_path / "weights.pth") is None
    assert commit_of(tmp_path / f"snapshots/{COMMIT}/model.safetensors") is None
