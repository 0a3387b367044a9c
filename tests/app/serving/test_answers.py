"""Answers over HTTP are predict.py's files."""

import json

import cv2
import numpy as np
import pytest

from app.prediction.command import main
from app.prediction.formats import ENDINGS
from tests.app.serving.conftest import SIZES

FORMATS = ("png", "npy", "pfm", "exr", "ply", "glb", "color")


@pytest.fixture(scope="module")
def predicted(root):
    """What predict.py writes of each picture alone, by adapter."""
    fixed = ["--accelerator", "cpu", "--devices", "1", "--workers", "0"]
    fixed += ["--formats", *FORMATS, "--fov", "60", "--batch-size", "1"]
    fixed += ["--model", str(root / "base"), str(root / "pictures")]
    several = ["--adapters", str(root / "adapters")]
    for name in ("rooms", "streets"):
        out = ["--output", str(root / name)]
        main([*fixed, *several, "--adapter", name, *out])
    main([*fixed, "--output", str(root / "plain")])
    main([*fixed, *several, "--route", "--output", str(root / "routed")])
    return root


@pytest.mark.parametrize("kind", FORMATS)
def test_answer__equals_the_file_of_predict(predicted, client, kind):
    for adapter in ("rooms", "streets"):
        for name in SIZES:
            asked = {"adapter": adapter, "format": kind, "fov": 60}
            content = (predicted / "pictures" / name).read_bytes()
            answer = client.post("/v1/depth", params=asked, content=content)
            assert answer.status_code == 200, answer.text
            path = predicted / adapter / f"{name}{ENDINGS[kind]}"
            assert answer.content == path.read_bytes()


def test_answer__without_adapter_is_the_base(predicted, client):
    content = (predicted / "pictures/a.png").read_bytes()
    answer = client.post("/v1/depth?format=npy", content=content)
    assert answer.content == (predicted / "plain/a.png.depth.npy").read_bytes()
    assert answer.headers["x-adapter"] == ""
    assert answer.headers["x-generation"] == "0"


def test_route__chooses_as_predict_does(predicted, client):
    entries = json.loads((predicted / "routed/predictions.json").read_text())["files"]
    for name, entry in entries.items():
        content = (predicted / "pictures" / name).read_bytes()
        asked = {"route": "true", "format": "npy"}
        answer = client.post("/v1/depth", params=asked, content=content)
        assert answer.headers["x-adapter"] == entry["adapter"]
        confidence = float(answer.headers["x-confidence"])
        assert confidence == pytest.approx(entry["confidence"], abs=1e-5)
        path = predicted / "routed" / f"{name}.depth.npy"
        assert answer.content == path.read_bytes()


def test_headers__say_how_to_read_it(predicted, client):
    content = (predicted / "pictures/c.jpg").read_bytes()
    asked = {"adapter": "rooms", "fx": 50, "cy": 20}
    ids = {"X-Request-Id": "mine-1"}
    answer = client.post("/v1/depth", params=asked, content=content, headers=ids)
    headers = answer.headers
    units = cv2.imdecode(np.frombuffer(answer.content, np.uint8), -1)
    metres = units / float(headers["x-units-per-metre"])
    assert metres.min() == pytest.approx(float(headers["x-depth-min"]), abs=1e-3)
    assert metres.max() == pytest.approx(float(headers["x-depth-max"]), abs=1e-3)
    assert headers["x-intrinsics"] == "50,50,21.5,20"
    assert headers["x-focal-is-assumed"] == "false"
    assert headers["x-request-id"] == "mine-1"
    assert headers["x-unit"] == "metres"
    assert headers["content-type"] == "image/png"
    asked["format"] = "json"
    told = client.post("/v1/depth", params=asked, content=content).json()
    assert told["adapter"] == "rooms"
    assert told["depth_max"] == float(headers["x-depth-max"])
    assert told["size"] == [44, 60]


def test_form__is_as_good_as_a_body(predicted, client):
    content = (predicted / "pictures/a.png").read_bytes()
    files = {"picture": ("a.png", content, "image/png")}
    answer = client.post("/v1/depth?format=npy", files=files)
    assert answer.content == (predicted / "plain/a.png.depth.npy").read_bytes()
