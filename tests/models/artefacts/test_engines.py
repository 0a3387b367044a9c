"""Other engines than torch: the same depth, or one line."""

import json
import shutil

import numpy as np
import pytest
import torch

from app.prediction.command import main
from datamodules import extras
from datamodules.extras import ExtraError
from models.artefacts import engines
from models.artefacts.engines import with_engine
from models.artefacts.form import smooth
from models.artefacts.merged import save_network
from models.artefacts.opening import open_model
from models.errors import ExportError
from tests.conftest import onnx_of_any_size, random_tiny

pytestmark = onnx_of_any_size
SIZE = (28, 42)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A metric network, and a cache of its program."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("engines")
    save_network(random_tiny(), root / "model", {"image_size": list(SIZE)})
    return root


@pytest.fixture(autouse=True)
def _cache(folder, monkeypatch):
    monkeypatch.setenv("LAVA_CACHE", str(folder / "cache"))


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_engine__equals_torch_at_any_size(folder, engine):
    pytest.importorskip("openvino")
    network = open_model(str(folder / "model")).merged()
    found = with_engine(open_model(str(folder / "model")), engine, SIZE)
    for count, size in ((1, SIZE), (3, (70, 56)), (2, (14, 98))):
        image = smooth(count, size)
        with torch.inference_mode():
            expected, got = network(image), found.network(image)
        reach = float(expected.max() - expected.min())
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-3 * reach)
    # What is predicted goes by the weights, whichever export computes them.
    program = (folder / "cache/engines").glob("*/model.onnx")
    assert bytes.fromhex(next(program).parent.name[:64]) == found.network.sha256


def test_program__is_made_once(folder):
    said = []
    with_engine(open_model(str(folder / "model")), "onnx", SIZE, said.append)
    with_engine(open_model(str(folder / "model")), "onnx", SIZE, said.append)
    assert len(said) <= 1


def test_engine_that_differs__is_refused(folder, monkeypatch, tmp_path):
    shutil.copytree(folder / "cache", tmp_path / "cache")
    for known in (tmp_path / "cache/engines").glob("checked-*"):
        known.unlink()
    monkeypatch.setenv("LAVA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(engines, "TOLERANCE", -1.0)
    with pytest.raises(ExportError, match="differs from the network by"):
        with_engine(open_model(str(folder / "model")), "onnx", SIZE)
    assert not list(tmp_path.rglob("checked-*"))


def test_predict__by_engine_notes_it(folder, tmp_path, capsys):
    cv = pytest.importorskip("cv2")
    pytest.importorskip("openvino")
    rng = np.random.default_rng(0)
    picture = tmp_path / "a.png"
    cv.imwrite(str(picture), rng.integers(0, 255, (30, 44, 3), dtype=np.uint8))
    fixed = [str(picture), "--model", str(folder / "model"), "--formats", "npy"]
    fixed += ["--accelerator", "cpu", "--devices", "1", "--workers", "0"]
    depths = {}
    for engine in ("torch", "openvino"):
        out = tmp_path / engine
        main([*fixed, "--engine", engine, "--output", str(out)])
        depths[engine] = np.load(out / "a.png.depth.npy")
        header = json.loads((out / "predictions.json").read_text())["header"]
        assert header["engine"] == engine
    np.testing.assert_allclose(depths["openvino"], depths["torch"], rtol=1e-4)
    with pytest.raises(SystemExit):
        main([*fixed, "--engine", "onnx", "--precision", "bf16-mixed"])
    assert "--engine onnx computes in float32" in capsys.readouterr().err


def test_onnx_program__by_torch_is_refused(folder):
    program = next((folder / "cache/engines").glob("*/model.onnx"))
    with pytest.raises(ExportError, match="--engine onnx or openvino runs it"):
        with_engine(open_model(str(program)), "torch", SIZE)


def test_missing_package__is_one_line(folder, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ExtraError, match=r"needs onnxruntime, onnx.*\[engines\]"):
        with_engine(open_model(str(folder / "model")), "onnx", SIZE)
