"""Two networks and two pictures."""

import cv2
import numpy as np
import pytest
import torch

from models.artefacts.merged import save_network
from tests.conftest import random_tiny

SIZE = (28, 42)
PICTURES = {"a.png": (40, 56), "b/c.jpg": (60, 30)}


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """A metric and a relative network whose output varies over the picture."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("models")
    save_network(random_tiny(), root / "metric", {"image_size": list(SIZE)})
    relative = random_tiny("relative", None)
    with torch.no_grad():
        relative.last_conv.bias.fill_(3.0)
    save_network(relative, root / "relative", {"image_size": list(SIZE)})
    return root


@pytest.fixture
def pictures(tmp_path):
    root = tmp_path / "photographs"
    (root / "b").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in PICTURES.items():
        pixels = rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)
        cv2.imwrite(str(root / name), cv2.resize(pixels, size[::-1]))
    return root
