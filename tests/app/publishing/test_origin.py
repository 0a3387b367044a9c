"""What is published of networks without a record: exports, packaged ones, others'."""

import json
from pathlib import Path

import pytest
import yaml

from app.prediction.command import main
from app.publishing.hub import Publication, card
from models.adapters import Lava
from models.artefacts.base import Base
from models.artefacts.depth_facts import licence_of_weights
from models.artefacts.depth_record import DepthRecord
from models.artefacts.merged import save_network
from models.artefacts.opening import open_model
from models.errors import CheckpointError
from models.networks import NetworkSpec
from tests.app.publishing.adapted import save_adapted
from tests.app.publishing.test_hub import NAME
from tests.app.publishing.test_hub import hub as hub
from tests.app.publishing.test_hub import run as run
from tests.conftest import random_tiny


def record_on(base: Base, focal_px: float | None = None) -> DepthRecord:
    return DepthRecord(
        network=NetworkSpec("tiny", "v2", "metric", 10.0, focal_px),
        image_size=(28, 42),
        base=base,
        base_sha256="0",
        adapter=Lava(rank=2),
    )


def pushed(hub, run, *given) -> str:
    """The card that a push leaves."""
    done = run(*given)
    assert done.returncode == 0, done.stderr
    text: str = hub.repos[NAME]["README.md"].decode()
    return text


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> Path:
    """An adapter of a base for which no commerce is allowed, exported twice over."""
    root = tmp_path_factory.mktemp("exports")
    save_adapted(root / "depth_anything_v2_vitl", root / "adapter")
    for source, form, to in (
        ("adapter", "depth-anything", "merged"),
        ("merged", "transformers", "theirs"),
        ("theirs", "depth-anything", "again"),
    ):
        given = ["--model", str(root / source), "--export", str(root / to)]
        main([*given, "--export-format", form, "--size", "196x196"])
    return root


@pytest.mark.parametrize("name", ["adapter", "merged", "theirs", "again"])
def test_push__of_an_export_keeps_the_licence_of_its_base(hub, run, exports, name):
    given = ["--model", exports / name, "--push-to-hub", NAME, "--size", "196x196"]
    done = run(*given, "--license", "mit")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: the base is under cc-by-nc-4.0, which forbids")
    assert hub.repos == {}
    text = pushed(hub, run, *given)
    assert "license: cc-by-nc-4.0" in text
    assert "| base | depth_anything_v2_vitl |" in text
    assert "| method | Lava |" in text
    assert "| licence | cc-by-nc-4.0, that of the base |" in text
    assert "size tiny, adapted to metric depth up to 10 m\n" in text
    assert ("trained parameters" in text) == (name == "adapter")
    assert str(exports) not in text


def test_licence__of_an_export_as_a_base_is_that_of_its_own(exports, tmp_path):
    assert licence_of_weights(str(exports / "merged")) == "cc-by-nc-4.0"
    config = json.loads((exports / "merged/config.json").read_text())
    assert config.pop("base_licence") == "cc-by-nc-4.0"
    # Exports up to November 2026 name the base alone.
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert licence_of_weights(str(tmp_path)) == "cc-by-nc-4.0"


def test_push__of_a_packaged_network_claims_no_training(hub, run):
    text = pushed(hub, run, "--model", "tiny-rooms", "--push-to-hub", NAME)
    assert "size tiny, which predicts metric depth up to 10 m\n" in text
    assert "| base | tiny-rooms |" in text
    assert "| method | weights of others, not trained here |" in text
    assert "| licence | apache-2.0, that of the base |" in text
    assert "trained parameters" not in text


def test_push__of_a_relative_network_claims_no_metres(hub, run, tmp_path):
    save_network(random_tiny("relative", None), tmp_path / "relative")
    given = ["--model", tmp_path / "relative", "--push-to-hub", NAME]
    text = pushed(hub, run, *given, "--license", "mit")
    assert "which predicts relative depth\n" in text
    about = yaml.safe_load(text.split("---")[1])
    assert about["tags"] == ["depth-estimation", "relative-depth", "lava-depth"]
    assert "| base | not recorded |" in text
    assert "| licence | mit |" in text


def test_open__of_a_damaged_origin_is_one_line(tmp_path):
    path = tmp_path / "model"
    save_network(random_tiny(), path, {"adapter": {"rank": 2}})
    with pytest.raises(CheckpointError, match="has no 'method'; save it again"):
        open_model(str(path))


@pytest.mark.parametrize(
    ("base", "shown"),
    [
        (Base("/home/me/secret/base"), "base"),
        (Base("runs/best.ckpt"), "best.ckpt"),
        (Base("somebody/network", commit=40 * "a"), "somebody/network, commit aaa"),
        (Base("tiny-worlds"), "tiny-worlds"),
        (Base("da3mono-large"), "depth-anything/DA3MONO-LARGE"),
        (Base(None), "not recorded"),
    ],
)
def test_card__names_a_local_base_by_its_last_part(base, shown):
    publication = Publication(NAME, False, "adapter", None)
    text = card(publication, record_on(base), "mit", [], 7)
    assert f"| base | {shown}" in text
    assert "secret" not in text
    assert ", that of the base" not in text


@pytest.mark.parametrize("form", ["transformers", "onnx"])
@pytest.mark.parametrize(
    ("focal_px", "unit"),
    [(None, "  # metres"), (500.0, "  # depth * focal_px / 500 is metres")],
)
def test_card__says_how_metres_come_of_a_canonical_camera(form, focal_px, unit):
    publication = Publication(NAME, False, form, None)
    text = card(publication, record_on(Base(None), focal_px), "mit", [], 7)
    assert unit in text
    assert ("| canonical focal length | 500 px" in text) == (focal_px is not None)
