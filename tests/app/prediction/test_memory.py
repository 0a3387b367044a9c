"""What is alive at one time is bounded by pixels."""

import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from app.prediction import writer
from app.prediction.command import main
from app.prediction.pixel_budget import PixelBudget
from app.prediction.predictor import at_size
from models.artefacts.merged import save_network
from tests.conftest import random_tiny

REPO = Path(__file__).parents[3]
MEASURED = """
import re, sys
from pathlib import Path
from app.prediction.command import main
main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def write_pictures(folder: Path, count: int, rows: int, cols: int) -> None:
    folder.mkdir()
    for i in range(count):
        cv2.imwrite(str(folder / f"{i}.jpg"), np.full((rows, cols, 3), 90, np.uint8))


@pytest.fixture
def model(tmp_path) -> Path:
    save_network(random_tiny(), tmp_path / "model", {"image_size": [28, 42]})
    return tmp_path / "model"


def arguments(root: Path, model: Path) -> list[str]:
    args = [str(root / "in"), "--model", str(model), "--output", str(root / "out")]
    return [*args, "--accelerator", "cpu", "--devices", "1", "--workers", "0"]


@pytest.mark.parametrize("sizes", [[4] * 12, [3, 7, 10, 1, 25, 6] * 3])
def test_budget__is_kept_and_who_is_larger_is_alone(sizes):
    budget, lock, alive, seen = PixelBudget(10), threading.Lock(), [], []

    def work(size):
        with budget.taken(size):
            with lock:
                alive.append(size)
                seen.append(list(alive))
            time.sleep(0.002)
            with lock:
                alive.remove(size)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, sizes))
    assert len(seen) == len(sizes)
    assert all(sum(now) <= 10 or len(now) == 1 for now in seen)
    assert max(map(len, seen)) > 1


def test_error__gives_the_pixels_back():
    budget = PixelBudget(10)
    with pytest.raises(ValueError, match="wrong"), budget.taken(10):
        raise ValueError("wrong")
    with budget.taken(10):
        pass


@pytest.mark.parametrize(("pixels", "together"), [(4000, 2), (2000, 1)])
def test_pictures__get_their_own_size_when_they_are_written(
    model, tmp_path, monkeypatch, pixels, together
):
    """A batch of eight waits at the network's size; at most a budget is larger."""
    write_pictures(tmp_path / "in", 8, 40, 50)
    lock, alive, most = threading.Lock(), 0, 0

    def grown(depth, size):
        nonlocal alive, most
        assert depth.shape == (28, 42)
        with lock:
            alive += 1
            most = max(most, alive)
        time.sleep(0.02)
        return at_size(depth, size)

    real = writer.DepthWriter._write_files

    def written(self, predicted, entry):
        nonlocal alive
        real(self, predicted, entry)
        with lock:
            alive -= 1

    monkeypatch.setattr(writer, "PIXELS", pixels)
    monkeypatch.setattr(writer, "at_size", grown)
    monkeypatch.setattr(writer.DepthWriter, "_write_files", written)
    main(arguments(tmp_path, model))
    assert most == together
    assert len(list((tmp_path / "out").glob("*.color.png"))) == 8


@pytest.mark.slow  # its short form is the test before
def test_24_megapixels__need_300_mb_more_than_small_pictures_at_most(model, tmp_path):
    peaks = {}
    for name, rows, cols in (("small", 480, 640), ("large", 4000, 6000)):
        root = tmp_path / name
        root.mkdir()
        write_pictures(root / "in", 10, rows, cols)
        command = [sys.executable, "-c", MEASURED, *arguments(root, model)]
        # The worker reads; what it holds is its own.
        command[command.index("--workers") + 1] = "1"
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=REPO
        )
        peaks[name] = int(re.findall(r"\d+", done.stdout)[-1]) * 1024
    assert peaks["large"] - peaks["small"] < 300e6
