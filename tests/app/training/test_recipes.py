"""The shipped recipes, on tiny trees in the official layouts."""

import json
import warnings
from pathlib import Path

import pytest
import torch

from app.training.command import main
from models.adapters.methods import METHODS
from models.networks import DepthNetwork, NetworkSpec
from tests.datamodules.layouts import write_kitti, write_nyu_lists

CONFIGS = Path(__file__).parents[3] / "configs"
ADAPTERS = sorted((CONFIGS / "adapters").glob("*.yaml"))
RECIPES = sorted(CONFIGS.glob("*.yaml"))
SMALL = (
    *("--data.image_size", "[28,98]", "--data.batch_size", "2"),
    *("--data.num_workers", "0", "--trainer.accelerator", "cpu"),
    *("--trainer.enable_progress_bar", "false", "--trainer.devices", "1"),
    *("--trainer.enable_model_summary", "false", "--trainer.log_every_n_steps", "1"),
)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, str]:
    """Random weights in the official files' form, by recipe."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("official")
    state = DepthNetwork(NetworkSpec("S", "v2", "relative", None)).state_dict()
    depth, encoder = folder / "depth_anything_v2_vits.pth", folder / "dinov2_vits14.pth"
    torch.save(state, depth)
    prefix = "pretrained."
    inside = {k: v for k, v in state.items() if k.startswith(prefix)}
    torch.save({k.removeprefix(prefix): v for k, v in inside.items()}, encoder)
    return {"": str(depth), "dinov2_": str(encoder)}


@pytest.mark.parametrize(
    "encoder", ["", pytest.param("dinov2_", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    ("name", "protocol", "writer"),
    [
        ("nyu", "nyu_eigen", write_nyu_lists),
        ("kitti", "kitti_eigen_garg_kb", write_kitti),
    ],
)
def test_recipe__trains_and_tests(
    tmp_path, weights, capsys, encoder, name, protocol, writer
):
    config = str(CONFIGS / f"{encoder}{name}.yaml")
    given = ["--config", config, "--data.root", str(writer(tmp_path / "data"))]
    given += [*SMALL, "--model.weights", weights[encoder]]
    given += ["--data.augment.crop", "[28,56]"]
    main(["fit", *given, "--trainer.max_epochs", "1"])
    run = tmp_path / f"runs/{encoder}{name}/version_0"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["protocol"] == protocol
    best = run / "checkpoints/best.ckpt"
    main(["test", *given, "--ckpt_path", str(best)])
    found = json.loads((best.parent / f"test_{protocol}.json").read_text())
    assert (found["protocol"], found["checkpoint"]) == (protocol, "best.ckpt")
    assert found["metrics"] == pytest.approx(summary["after"], rel=1e-4)
    out = capsys.readouterr().out
    assert f"WARNING: {protocol} has " in out
    assert "metric " in out.split(f"protocol {protocol}")[-1]
    assert not list(tmp_path.glob("*.yaml"))


@pytest.mark.filterwarnings("ignore:start_depth 2.75 has no effect")
@pytest.mark.parametrize(
    "paths",
    [
        [path for path in ADAPTERS if path.stem in ("dora", "full", "lava")],
        pytest.param(ADAPTERS, marks=pytest.mark.slow),
    ],
    ids=["three", "all"],
)
def test_recipe__adapters_stack_and_name_the_run(tmp_path, tiny_weights, paths):
    root = str(write_nyu_lists(tmp_path / "data"))
    config = ["--config", str(CONFIGS / "nyu.yaml"), "--data.root", root, *SMALL]
    config += ["--model.weights", str(tiny_weights), "--model.size", "tiny"]
    config += ["--trainer.max_epochs", "1"]
    one_step = ("--trainer.limit_train_batches", "1")
    trained = {}
    for path in paths:
        main(["fit", *config, "--config", str(path), *one_step])
        run = tmp_path / f"runs/nyu-{path.stem}/version_0"
        summary = json.loads((run / "summary.json").read_text())
        trained[path.stem] = summary["trainable_params"]
    order = ("svdiff", "lava", "lora", "dora", "head_only", "full")
    counts = [trained[name] for name in order if name in trained]
    assert counts == sorted(counts)
    assert len(trained) == len(paths)


def test_recipe__every_method_has_one():
    text = "".join(path.read_text() for path in ADAPTERS)
    for name in METHODS:
        assert f"class_path: models.adapters.{name}\n" in text


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe__parses(path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(path), "--print_config"])
    assert stop.value.code == 0
    assert "class_path: datamodules." in capsys.readouterr().out


def test_test__flip_and_alignment_are_labelled_apart(tmp_path, weights, capsys):
    root = str(write_nyu_lists(tmp_path / "data"))
    given = ["--config", str(CONFIGS / "nyu.yaml"), "--data.root", root, *SMALL]
    given += ["--model.weights", weights[""]]
    main(["test", *given])
    main(["test", *given, "--flip_tta", "true", "--align", "median"])
    relative = ["--model.adapter", "null", "--model.kind", "relative"]
    main(["test", *given, *relative, "--align", "disparity"])
    out = capsys.readouterr().out
    assert "median-scaled, not metric, with flip" in out
    assert "affine disparity fitted, not metric" in out
    names = {path.name for path in tmp_path.glob("*.json")}
    assert names == {
        "test_nyu_eigen.json",
        "test_nyu_eigen_aligned_median_flip.json",
        "test_nyu_eigen_aligned_disparity.json",
    }
    for command in (["fit", *given], ["validate", *given]):
        with pytest.raises(SystemExit) as stop:
            main([*command, "--flip_tta", "true"])
        assert stop.value.code != 0


def test_on_error__skipped_frames_are_counted_and_named(tmp_path, weights):
    root = write_nyu_lists(tmp_path / "data")
    for path in ("sync/kitchen_0028b/d_2.png", "official_splits/test/bathroom/d_1.png"):
        (root / path).write_bytes((root / path).read_bytes()[:500])
    given = ["--config", str(CONFIGS / "nyu.yaml"), "--data.root", str(root), *SMALL]
    given += ["--model.weights", weights[""], "--trainer.max_epochs", "1"]
    with pytest.raises(SystemExit):
        main(["fit", *given, "--data.num_workers", "2"])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        main(["fit", *given, "--data.on_error", "skip"])
    messages = [str(warning.message) for warning in said]
    for name in ("d_1.png", "d_2.png"):
        pattern = "frames could not be read and were skipped"
        assert any(pattern in text and name in text for text in messages)
    assert "1 val images have no valid pixel and were not averaged" in messages
    run = tmp_path / "runs/nyu/version_1"
    assert json.loads((run / "summary.json").read_text())["n_images"] == 1
