"""One processor without Lightning, several with it; the same files either way."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from app.prediction.command import main
from app.prediction.options import Prediction
from app.prediction.processes import Processes
from app.prediction.running import OneDevice, runner
from datamodules.errors import DataError

PROBE = """
import sys
from app.prediction.command import main
main(sys.argv[1:])
assert not {"lightning", "torchmetrics", "transformers"} & set(sys.modules)
"""
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(3):
        pixels = rng.integers(0, 255, (42 + 14 * i, 56, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"{i}.png"), pixels)
    return tmp_path


def command(photos, tiny_weights, out, *more):
    fixed = ["--accelerator", "cpu", "--workers", "0", "--formats", "npy"]
    output = ["--output", str(photos / out)]
    return [str(photos), "--model", str(tiny_weights), *fixed, *output, *more]


def test_one_device__does_not_wait_for_lightning(photos, tiny_weights):
    args = command(photos, tiny_weights, "out")
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *args], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(list((photos / "out").glob("*.npy"))) == 3


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_one_device__writes_what_lightning_does(
    photos, tiny_weights, monkeypatch, precision
):
    main(command(photos, tiny_weights, "one", "--precision", precision))
    monkeypatch.setattr("app.prediction.pictures.runner", Processes)
    more = ["--devices", "1", "--precision", precision]
    main(command(photos, tiny_weights, "two", *more))
    for i in range(3):
        one, two = (np.load(photos / o / f"{i}.png.depth.npy") for o in ("one", "two"))
        np.testing.assert_array_equal(one, two)


@no_gpu
@pytest.mark.parametrize("wanted", ["cuda", "gpu", "mps"])
def test_runner__names_what_is_not_there(wanted):
    if wanted != "cuda" and torch.backends.mps.is_available():
        pytest.skip("there is one")
    with pytest.raises(DataError, match=f"--accelerator {wanted}: torch finds none"):
        runner(Prediction(accelerator=wanted))


def test_runner__leaves_several_to_lightning(monkeypatch):
    for name in ("WORLD_SIZE", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    assert isinstance(runner(Prediction(accelerator="cpu")), OneDevice)
    assert isinstance(runner(Prediction(accelerator="cpu", devices="1")), OneDevice)
    monkeypatch.setattr("app.prediction.processes.Processes", lambda p: p.devices)
    assert runner(Prediction(accelerator="cpu", devices="2")) == "2"
    assert runner(Prediction(accelerator="cpu", devices="0,1")) == "0,1"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert runner(Prediction(accelerator="cpu", devices="1")) == "1"


def test_one_device__no_cpu_computes_in_float16():
    with pytest.warns(UserWarning, match="bf16-mixed is used"):
        found = OneDevice(torch.device("cpu"), "16-mixed")
    assert found.dtype == torch.bfloat16
