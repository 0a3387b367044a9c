"""Tiny random networks and generated files with known answers."""

import os
import tempfile
from pathlib import Path

import cv2
import lightning.pytorch  # noqa: F401 - its log goes where stderr is at this moment
import numpy as np
import pytest
import torch

from models.artefacts.merged import save_network
from models.networks import DepthNetwork, NetworkSpec

REAL_DATA = Path(os.environ.get("LAVA_REAL_DATA", "unset"))
"""Real frames and official lists for those who have them: a folder with `index.json`
(id, rgb, depth, depth_scale) and `splits/`."""
needs_real_data = pytest.mark.skipif(
    not REAL_DATA.is_dir(), reason="LAVA_REAL_DATA names no folder of real frames"
)


OLD_TORCH = torch.__version__ < "2.11"


def lacks(what: str) -> pytest.MarkDecorator:
    """Skip under a torch older than 2.11, the oldest that was seen to have it."""
    reason = f"torch {torch.__version__} cannot {what}"
    return pytest.mark.skipif(OLD_TORCH, reason=reason)


onnx_of_any_size = lacks("export ONNX without a fixed input size")


def pytest_configure(config):
    config.lava_cache = tempfile.TemporaryDirectory(prefix="lava-cache-")
    os.environ["LAVA_CACHE"] = config.lava_cache.name
    # Workers share the cores: more threads than cores only wait for each other.
    if hasattr(config, "workerinput"):
        torch.set_num_threads(1)
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start


@pytest.fixture(autouse=True)
def _deterministic():
    torch.manual_seed(0)


@pytest.fixture
def tiny() -> DepthNetwork:
    """A random tiny metric network whose output varies over the picture."""
    return random_tiny()


def random_tiny(kind="metric", max_depth=10.0) -> DepthNetwork:
    network = DepthNetwork(NetworkSpec("tiny", "v2", kind, max_depth))
    with torch.no_grad():
        network.last_conv.weight.mul_(20)
    return network.eval()


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory) -> Path:
    """A merged folder with random tiny weights, metric, 10 m."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    save_network(random_tiny(), folder)
    return folder


@pytest.fixture
def rgbd(tmp_path) -> Path:
    """A root with 6 frames of 40x56 px whose depth is 1, 2, ... 6 m."""
    return write_rgbd(tmp_path / "rgbd", 6)


def write_rgbd(root: Path, frames: int, size=(40, 56), depth_scale=1000) -> Path:
    rng = np.random.default_rng(0)
    for i in range(frames):
        for kind in ("images", "depths"):
            (root / kind / "a").mkdir(parents=True, exist_ok=True)
        image = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
        depth = np.full(size, (i + 1) * depth_scale, np.uint16)
        depth[0, 0] = 0
        assert cv2.imwrite(str(root / f"images/a/{i}.jpg"), image)
        assert cv2.imwrite(str(root / f"depths/a/{i}.png"), depth)
    return root


def pytest_unconfigure(config):
    config.lava_cache.cleanup()
