"""What is meant to be added often costs one file: each used as its user would."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from app.prediction.command import main as predict
from app.training.command import main as train
from models import artefacts
from models.adapters import methods
from models.artefacts.checkpoint import load_checkpoint, read_checkpoint
from models.artefacts.families import class_named
from models.artefacts.merged import save_network
from models.errors import CheckpointError
from models.networks.interface import Network
from tests.seams.toy_encoder import ToyNetwork, ToySpec
from tests.seams.toy_method import OutputScale

RUN = Path("runs/toy/version_0")
BEST = RUN / "checkpoints/best.ckpt"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grey = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    assert cv2.imwrite("photo.png", grey)


def config(model: str, **options) -> list[str]:
    """A recipe in a file; YAML reads JSON."""
    content = {
        "seed_everything": 0,
        "model": {"class_path": model, "init_args": options},
        "data": {"class_path": "tests.seams.toy_data.PlanesDataModule"},
        "trainer": {
            "max_epochs": 1,
            "accelerator": "cpu",
            "devices": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        },
    }
    Path("toy.yaml").write_text(json.dumps(content))
    return ["--config", "toy.yaml"]


def depth_anything(weights, **options) -> list[str]:
    given = {"size": "tiny", "weights": str(weights), **options}
    return config("models.DepthAnythingModule", **given)


def depth(model, *more) -> np.ndarray:
    fixed = ["--accelerator", "cpu", "--devices", "1", "--workers", "0", "--overwrite"]
    predict(["photo.png", "--model", str(model), "--formats", "npy", *fixed, *more])
    return np.load("predictions/photo.png.depth.npy")


@pytest.fixture
def toy_run(tmp_path):
    """A toy network, adapted on the toy data set."""
    torch.manual_seed(0)
    save_network(ToyNetwork(ToySpec()), tmp_path / "base")
    adapter = {"class_path": "models.adapters.Lava", "init_args": {"rank": 2}}
    options = config(
        "tests.seams.toy_encoder.ToyModule",
        weights=str(tmp_path / "base"),
        adapter=adapter,
    )
    train(["fit", *options, "--data.image_size", "[32,48]"])
    return options


def test_encoder__is_trained_resumed_predicted_and_handed_on(toy_run, capsys):
    record, tensors = read_checkpoint(BEST)
    assert record.family is ToyNetwork
    assert record.network == ToySpec()
    assert {name.split(".")[0] for name in tensors} == {"pretrained", "depth_head"}
    assert any(name.startswith("pretrained.blocks.0.adapter.") for name in tensors)
    assert not any("unread" in name for name in tensors)
    more = ["--ckpt_path", str(RUN / "checkpoints/last.ckpt")]
    train(["test", *toy_run, "--data.image_size", "[32,48]", *more])
    own = depth(BEST)
    for form in ("depth-anything", "adapter"):
        predict(["--model", str(BEST), "--export", form, "--export-format", form])
        assert np.array_equal(depth(form), own), form
    with pytest.raises(SystemExit):
        predict(
            ["--model", str(BEST), "--export", "t", "--export-format", "transformers"]
        )
    assert "no class for a ToyNetwork" in capsys.readouterr().err


def test_encoder__says_its_patches_and_colours_to_the_data(toy_run, capsys):
    with pytest.raises(SystemExit):
        train(["fit", *toy_run, "--data.image_size", "[28,42]"])
    assert "multiples of 16; the nearest is [32, 48]" in capsys.readouterr().err
    network, record = load_checkpoint(BEST)
    pixels = cv2.imread("photo.png")[..., ::-1]
    pixels = cv2.resize(pixels, record.image_size[::-1], interpolation=cv2.INTER_CUBIC)
    image = torch.from_numpy(pixels / 127.5 - 1).float().permute(2, 0, 1)
    with torch.no_grad():
        expected = torch.nn.functional.interpolate(
            network.eval()(image[None]), (40, 60), mode="bilinear", align_corners=True
        )
    np.testing.assert_allclose(depth(BEST), expected[0, 0], rtol=1e-4)


def test_optimizer__trains_and_is_what_the_checkpoint_says(tiny_weights, capsys):
    options = depth_anything(tiny_weights, adapter=None)
    name = "tests.seams.toy_optimizer.SignDescent"
    optimizer = ["--model.optimisation.optimizer", name]
    rate = ["--model.optimisation.head_lr", "0.001"]
    train(["fit", *options, *optimizer, *rate])
    content = torch.load(BEST, weights_only=True)
    assert content["lava_depth"]["training"]["optimizer"] == name
    # Every group has its rate, and every element moved by it at most.
    groups = content["optimizer_states"][0]["param_groups"]
    assert {group["name"] for group in groups} >= {"head", "encoder", "encoder_flat"}
    last = str(RUN / "checkpoints/last.ckpt")
    more = ["--ckpt_path", last, "--trainer.max_epochs", "2"]
    with pytest.raises(SystemExit):
        train(["fit", *options, *more])
    assert f"it was trained with {name}" in capsys.readouterr().err


def test_optimizer__of_torch_with_options_of_its_own(tiny_weights):
    options = depth_anything(tiny_weights, adapter=None)
    sgd = "--model.optimisation.optimizer"
    train(["fit", *options, sgd, "torch.optim.SGD", f"{sgd}.momentum", "0.5"])
    content = torch.load(BEST, weights_only=True)
    (state,) = content["optimizer_states"]
    assert {group["momentum"] for group in state["param_groups"]} == {0.5}


def test_method__enters_the_list_and_is_trained_and_opened(tiny_weights, monkeypatch):
    monkeypatch.setitem(methods.METHODS, "OutputScale", OutputScale)
    adapter = {"class_path": "tests.seams.toy_method.OutputScale"}
    train(["fit", *depth_anything(tiny_weights, adapter=adapter)])
    record, _ = read_checkpoint(BEST)
    assert isinstance(record.adapter, OutputScale)
    own = depth(BEST)
    predict(["--model", str(BEST), "--export", "merged"])
    assert np.array_equal(depth("merged"), own)


def test_method__outside_the_list_is_refused_before_training(tiny_weights, capsys):
    adapter = {"class_path": "tests.seams.toy_method.OutputScale"}
    with pytest.raises(SystemExit):
        train(["fit", *depth_anything(tiny_weights, adapter=adapter)])
    assert "OutputScale is not in METHODS" in capsys.readouterr().err


def test_form__enters_the_list_and_is_written_and_opened(tiny_weights, monkeypatch):
    monkeypatch.setitem(artefacts.FORMS, "arrays", "tests.seams.toy_form")
    given = ["--model", str(tiny_weights), "--size", "42x28"]
    predict([*given, "--export", "out", "--export-format", "arrays"])
    assert [path.name for path in Path("out").iterdir()] == ["arrays.npz"]
    own = depth(tiny_weights, "--size", "42x28")
    assert np.array_equal(depth("out"), own)


def test_data__is_trained_on(tiny_weights):
    train(["fit", *depth_anything(tiny_weights, adapter=None)])
    summary = json.loads((RUN / "summary.json").read_text())
    assert summary["n_images"] == 2


@pytest.mark.parametrize("name", ["os.system", "subprocess.Popen", "models.nowhere.X"])
def test_class__that_a_file_may_not_name_is_refused(name):
    with pytest.raises(CheckpointError, match="which is no Network of models"):
        class_named(name, Network, "models")


def test_class__of_a_module_outside_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CheckpointError, match="below models/"):
        class_named("evil.Network", Network, "models")
