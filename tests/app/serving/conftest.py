"""A base with two adapters, pictures, and a service of them."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch

from app.prediction.command import main
from tests.app.serving.server import served
from tests.models.mixed.runs import data, fit, module

SIZES = {"a.png": (30, 44), "b.png": (30, 44), "c.jpg": (60, 44), "d.png": (90, 33)}


@pytest.fixture(scope="session")
def root(tmp_path_factory, tiny_weights):
    """`pictures`, `base`, `adapters` (rooms, streets, a router) and `mixed.ckpt`."""
    folder = tmp_path_factory.mktemp("served")
    rng = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    for name, size in SIZES.items():
        pixels = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        pixels = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / "pictures" / name), pixels)
    torch.manual_seed(0)
    model = module(tiny_weights)
    torch.nn.init.normal_(model.router.linear.weight, std=0.3)
    found = fit(model, data(), max_epochs=1, limit_val_batches=0)
    found.save_checkpoint(folder / "mixed.ckpt")
    shutil.copytree(tiny_weights, folder / "base")
    config = folder / "base/config.json"
    said = json.loads(config.read_text()) | {"image_size": [28, 42]}
    config.write_text(json.dumps(said))
    export = ["--export", str(folder / "adapters"), "--export-format", "adapter"]
    main(["--model", str(folder / "mixed.ckpt"), *export])
    return folder


@pytest.fixture(scope="session")
def client(root):
    """Of a service with two adapters."""
    with served(root / "base", root / "adapters") as found:
        yield found


@pytest.fixture
def picture(root):
    return (root / "pictures/a.png").read_bytes()
