"""No option of predict.py is taken and ignored where predictions are there already."""

import dataclasses
import json

import cv2
import numpy as np
import pytest

from app.prediction.command import main
from app.prediction.header import NEUTRAL
from app.prediction.options import Prediction, flag
from models.artefacts.merged import save_network
from tests.conftest import random_tiny

OTHER = {
    "depth_scale": "256",
    "colormap": "gray",
    "size": "56x42",
    "exif": "ignore",
    "shrink": "cubic",
    "precision": "bf16-mixed",
    "formats": "npy",
    "devices": "1",
    "accelerator": "auto",
    "fov": "50",
    "assume_fov": "50",
    "engine": "onnx",
}
"""Where another value is no number."""
MEANING = {
    "depth_scale": "png_units_per_metre",
    "size": "input_size",
    "shrink": "image_shrink",
}
"""Names under which the header has them."""


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """A picture, a model, and the folder of a first prediction."""
    root = tmp_path_factory.mktemp("predicted")
    cv2.imwrite(str(root / "a.png"), np.full((28, 42, 3), 90, np.uint8))
    save_network(random_tiny(), root / "model", {"image_size": [28, 42]})
    predict(root)
    return root


def predict(root, *more, model="model"):
    fixed = ["--accelerator", "cpu", "--devices", "1", "--workers", "0"]
    given = [*fixed, "--output", str(root / "out"), "--model", str(root / model)]
    main([str(root / "a.png"), *given, *more])


def changed(option):
    if isinstance(option.default, bool):
        return [flag(option.name)]
    return [flag(option.name), OTHER.get(option.name, "3")]


OPTIONS = [
    option
    for option in dataclasses.fields(Prediction)
    # Those of known points belong together: `test_points.py` changes them.
    if option.name != "images" and not option.name.startswith("points")
]
CASES = [
    # An ONNX program takes half a minute to make.
    pytest.param(option, marks=pytest.mark.slow if option.name == "engine" else ())
    for option in OPTIONS
]


@pytest.mark.parametrize("option", CASES, ids=lambda option: option.name)
def test_option__changed_later_is_applied_or_refused_by_name(predicted, capsys, option):
    capsys.readouterr()
    before = {path: path.read_bytes() for path in (predicted / "out").iterdir()}
    if option.name in NEUTRAL:
        if option.name == "output":
            return
        predict(predicted, *changed(option))
        said = capsys.readouterr().out
        redone = option.name in ("overwrite", "formats")
        assert redone != ("1 of 1 are there already" in said)
        return
    with pytest.raises(SystemExit):
        predict(predicted, *changed(option))
    error = capsys.readouterr().err
    meaning = {
        "depth_scale": "png_units_per_metre",
        "size": "input_size",
        "shrink": "image_shrink",
    }
    assert meaning.get(option.name, option.name) in error
    assert "give another --output, or --overwrite" in error
    for path, content in before.items():
        if path.name != "predictions.json":
            assert path.read_bytes() == content


def test_model__of_other_weights_under_the_same_name_is_refused(predicted, capsys):
    """A run that went on has written the same best.ckpt anew."""
    network = random_tiny()
    network.depth_head.scratch.output_conv2[2].bias.data += 1
    (predicted / "model").rename(predicted / "first")
    save_network(network, predicted / "model", {"image_size": [28, 42]})
    try:
        with pytest.raises(SystemExit):
            predict(predicted)
    finally:
        (predicted / "model").rename(predicted / "second")
        (predicted / "first").rename(predicted / "model")
    assert "sha256" in capsys.readouterr().err


def test_header__names_every_option_that_is_not_neutral(predicted):
    header = json.loads((predicted / "out/predictions.json").read_text())["header"]
    names = {option.name for option in OPTIONS} - {*NEUTRAL, *MEANING}
    assert names <= set(header)
