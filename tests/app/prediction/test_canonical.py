"""Metres of any camera, from a network that predicts for a canonical one."""

import json

import cv2
import numpy as np
import pytest
import torch

from app.prediction.command import main
from models.artefacts.merged import save_network
from models.artefacts.opening import open_model
from models.networks import DepthNetwork, NetworkSpec, load_depth_anything

CANONICAL_PX, CANONICAL_M = 50.0, 4.0
SPEC = NetworkSpec("tiny", "v2", "metric", 40.0, CANONICAL_PX)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network to which every picture is a wall at 4 m of its canonical camera."""
    torch.manual_seed(0)
    network = DepthNetwork(SPEC).eval()
    network.start_at_depth(CANONICAL_M)
    torch.nn.init.zeros_(network.depth_head.scratch.output_conv2[2].weight)
    folder = tmp_path_factory.mktemp("canonical") / "model"
    save_network(network, folder, {"image_size": [28, 42]})
    return folder


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.full((56, 84, 3), 90, np.uint8))
    return path


def predict(picture, model, out, *more):
    fixed = ["--accelerator", "cpu", "--devices", "1", "--workers", "0"]
    given = ["--model", str(model), "--output", str(out), "--formats", "npy", "ply"]
    main([str(picture), *given, *fixed, *more])
    content = json.loads((out / "predictions.json").read_text())["files"]
    return np.load(out / "a.png.depth.npy"), content["a.png"]


@pytest.mark.parametrize("focal_px", [60.0, 100.0, 300.0])
@pytest.mark.parametrize("more", [(), ("--tile",), ("--tta",), ("--size", "28x56")])
def test_wall__is_where_its_camera_puts_it(picture, model, tmp_path, focal_px, more):
    """Its distance, and in the point cloud its width, within 1 %."""
    depth, _ = predict(picture, model, tmp_path / "out", "--fx", str(focal_px), *more)
    rows, cols = (56, 28) if "--size" in more else (28, 42)
    input_px = focal_px * (rows / 56 * cols / 84) ** 0.5
    expected_m = CANONICAL_M * input_px / CANONICAL_PX
    np.testing.assert_allclose(depth, expected_m, rtol=1e-2)
    lines = (tmp_path / "out/a.png.ply").read_bytes().partition(b"end_header\n")[2]
    points = np.frombuffer(lines, np.dtype([("p", "<f4", 3), ("c", "u1", 3)]))["p"]
    width = points[:, 0].max() - points[:, 0].min()
    assert width == pytest.approx(83 / focal_px * expected_m, rel=1e-2)


def test_unknown_camera__is_one_line_or_assumed_and_noted(
    picture, model, tmp_path, capsys
):
    with pytest.raises(SystemExit):
        predict(picture, model, tmp_path / "out")
    error = capsys.readouterr().err
    assert "1 of 1 pictures have no focal length" in error
    assert "--fx (pixels) or --fov (degrees)" in error
    depth, entry = predict(picture, model, tmp_path / "out", "--assume-fov", "90")
    assert entry["focal_is_assumed"]
    assert entry["intrinsics"][0] == pytest.approx(42)
    np.testing.assert_allclose(depth, CANONICAL_M * 21 / CANONICAL_PX, rtol=1e-2)


def test_depth__never_exceeds_what_was_learned(picture, model, tmp_path):
    depth, _ = predict(picture, model, tmp_path / "out", "--fx", "10000")
    assert depth.max() == pytest.approx(40.0)


@pytest.mark.parametrize(
    "form",
    [
        "depth-anything",
        "transformers",
        pytest.param("onnx", marks=pytest.mark.slow),  # half a minute, as its peers'
    ],
)
def test_export__says_its_camera(model, tmp_path, form):
    if form != "depth-anything":
        pytest.importorskip("transformers" if form == "transformers" else "onnxruntime")
    given = ["--export", str(tmp_path / "x"), "--export-format", form]
    main(["--model", str(model), *given])
    opened = open_model(str(tmp_path / "x"))
    assert opened.network.canonical_focal_px == CANONICAL_PX
    if form != "onnx":
        given = {"size": "tiny", "version": "v2", "kind": "metric", "max_depth": 40.0}
        network = load_depth_anything(tmp_path / "x", **given)
        assert network.canonical_focal_px == CANONICAL_PX
