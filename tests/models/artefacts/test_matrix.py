"""Every cell of `models/artefacts/README.md`: written, opened, predicting the same."""

import os
import stat
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from app.prediction.command import main
from datamodules import SyntheticDataModule
from models import DepthAnythingModule
from models.adapters import DoRA, Lava
from models.artefacts import FORMS, form_named
from models.artefacts.checkpoint import load_checkpoint
from models.networks import NetworkError
from tests.conftest import onnx_of_any_size

# What torch's own exporter says of itself.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)
# The grid of pre-training: elsewhere `transformers` has another rule.
SIZE = (196, 196)
ONNX = pytest.param("onnx", marks=onnx_of_any_size)
ALL_FORMS = [ONNX if name == "onnx" else name for name in FORMS]
README = Path(__file__).parents[3] / "models/artefacts/README.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_weights) -> Path:
    """Two checkpoints, of an adapter and of a whole network, and a picture."""
    root = tmp_path_factory.mktemp("matrix")
    for name, adapter in (("adapted", DoRA(rank=2)), ("whole", None)):
        torch.manual_seed(0)
        module = DepthAnythingModule(
            80.0, SIZE, size="tiny", weights=str(tiny_weights), adapter=adapter
        )
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter), alpha=0.01)
        keep = ModelCheckpoint(root, filename=name, every_n_train_steps=1)
        data = SyntheticDataModule("streets", 2, 2, image_size=(28, 42), batch_size=2)
        Trainer(
            max_steps=1,
            accelerator="cpu",
            logger=False,
            callbacks=[keep],
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
        ).fit(module, data)
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    cv2.imwrite(str(root / "photo.png"), cv2.GaussianBlur(pixels, (9, 9), 0))
    return root


@pytest.fixture
def here(folder, monkeypatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def depth(model, *more) -> np.ndarray:
    fixed = ["--accelerator", "cpu", "--devices", "1", "--workers", "0", "--overwrite"]
    main(["photo.png", "--model", str(model), "--formats", "npy", *fixed, *more])
    return np.load("predictions/photo.png.depth.npy")


def export(model, form: str, *more) -> Path:
    """The folder of an export, made once."""
    folder = Path(f"{Path(model).stem}-{form}{''.join(more)}")
    if not folder.exists():
        given = ["--export", str(folder), "--export-format", form, *more]
        main(["--model", str(model), *given])
    return folder


@pytest.mark.parametrize("form", ALL_FORMS)
def test_form__is_written_opened_and_predicts_the_same(here, form):
    own = depth("adapted.ckpt")
    folder = export("adapted.ckpt", form)
    found = depth(folder)
    # The size that it was trained at is the size that it is used at.
    np.testing.assert_allclose(found, own, rtol=form_named(form).tolerance)


def test_checkpoint__of_a_whole_network_is_opened_and_handed_on(here):
    own = depth("whole.ckpt")
    assert np.array_equal(depth(export("whole.ckpt", "depth-anything")), own)


@pytest.mark.parametrize("form", ["adapter", "peft"])
def test_form__of_an_adapter_refuses_a_whole_network(here, form, capsys):
    with pytest.raises(SystemExit):
        export("whole.ckpt", form)
    assert "has no adapter" in capsys.readouterr().err


@onnx_of_any_size
def test_onnx__can_only_predict(here, capsys):
    program = export("adapted.ckpt", "onnx") / "model.onnx"
    with pytest.raises(SystemExit):
        export(program, "depth-anything")
    assert "an ONNX program, which can only predict" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["depth-anything", "transformers", "whole.ckpt"])
def test_warm_start__from_a_whole_network_keeps_its_output(here, form):
    source = form if form.endswith(".ckpt") else str(export("adapted.ckpt", form))
    module = DepthAnythingModule(80.0, SIZE, size="tiny", weights=source)
    image = torch.randn(1, 3, *SIZE)
    first = "whole.ckpt" if form.endswith(".ckpt") else "adapted.ckpt"
    network, _ = load_checkpoint(Path(first))
    with torch.no_grad():
        ours, theirs = module.eval()(image), network.eval()(image)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=0)


@pytest.mark.parametrize("form", ["adapter", "peft", ONNX, "adapted.ckpt"])
def test_warm_start__from_an_adapter_names_the_command(here, form):
    source = form if form.endswith(".ckpt") else str(export("adapted.ckpt", form))
    with pytest.raises(NetworkError, match=r"predict\.py --model .* --export MERGED"):
        DepthAnythingModule(
            80.0, SIZE, size="tiny", weights=source, adapter=Lava(rank=1)
        )


@pytest.mark.parametrize("form", ALL_FORMS)
def test_form__files_have_the_mode_of_any_other_file(here, form):
    Path("plain").touch()
    usual = stat.S_IMODE(Path("plain").stat().st_mode)
    for path in export("adapted.ckpt", form).iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == usual, path


def test_form__asked_size_is_the_written_size(here):
    merged = export("adapted.ckpt", "depth-anything", "--size", "112x98")
    assert np.array_equal(depth(merged), depth("adapted.ckpt", "--size", "112x98"))
    theirs = export("adapted.ckpt", "transformers", "--size", "112x98")
    text = (theirs / "preprocessor_config.json").read_text()
    assert '"height": 98' in text
    assert '"width": 112' in text
    assert '"keep_aspect_ratio": false' in text


def test_readme__has_a_row_for_every_form():
    text = README.read_text()
    for name in (*FORMS, "checkpoint"):
        assert f"| `{name}` |" in text


@pytest.mark.skipif(os.name != "posix", reason="umask is POSIX's")
def test_umask__of_the_user_holds(here):
    before = os.umask(0o077)
    try:
        folder = export("whole.ckpt", "depth-anything", "--size", "28x28")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {0o600}
