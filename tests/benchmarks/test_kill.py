"""Killing in a short form, and that the looking finds what it looks for."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.killing.cases import Predicting
from benchmarks.killing.files import broken, leftovers

REPO = Path(__file__).parents[2]


def kill(*options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kill", "--kills", "1", *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPO,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow  # short: test_ledger.py (cut at any byte), test_whole.py (SIGKILL)
@pytest.mark.parametrize("kind", ["training", "predicting", "exporting"])
def test_kill__one_of_every_kind(kind):
    assert f"1 kills (1 of {kind}): 0 faults" in kill("--kinds", kind)


@pytest.mark.parametrize("name", ["a.ckpt", "a.npy", "a.json", "a.png", "a.csv"])
def test_broken__finds_a_file_that_is_cut_off(tmp_path, name):
    path = tmp_path / name
    if path.suffix == ".ckpt":
        torch.save({"a": torch.zeros(100)}, path)
    elif path.suffix == ".npy":
        np.save(path, np.zeros(100))
    elif path.suffix == ".png":
        from PIL import Image

        Image.new("RGB", (30, 40)).save(path)
    else:
        path.write_text('{"a": 1}' if path.suffix == ".json" else "a,b\n1,2\n3,4\n")
    assert not broken(tmp_path)
    path.write_bytes(path.read_bytes()[:-3])
    assert len(broken(tmp_path)) == 1
    path.rename(tmp_path / f".{name}.part")
    assert not broken(tmp_path)
    assert leftovers(tmp_path) == [f".{name}.part is left over"]


def test_predicting__a_claim_without_its_file_is_a_fault(tmp_path):
    case = Predicting(tmp_path, pictures=1)
    case.begin("out")
    case.out.mkdir()
    for name in ("000.png.depth.npy", "predictions.json"):
        (case.out / name).touch()
    np.save(case.out / "000.png.depth.npy", np.zeros(3))
    entry = '{"outputs": ["000.png.depth.npy"], "error": "", "seconds": 1}'
    (case.out / "predictions.json").write_text(f'{{"files": {{"000.png": {entry}}}}}')
    case.keep_reference()
    assert not case.wrong(ended=True)
    np.save(case.out / "000.png.depth.npy", np.ones(3))
    assert case.wrong(ended=False) == ["another 000.png.depth.npy"]
    (case.out / "000.png.depth.npy").unlink()
    assert case.wrong(ended=False) == ["000.png.depth.npy is claimed and not there"]
    assert "000.png.depth.npy is lost" in case.wrong(ended=True)
