"""What the program wrote before its forms had a folder of their own still opens.

`before/` was written by commit d72edd7 (2026-11-25): a Lava and a DoRA of rank 1 on two
layers, and exports of a base whose weights repeat, so that they compress to kilobytes.
The depths beside them are its own predictions.
"""

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from app.prediction.command import main

BEFORE = Path(__file__).parent / "before"
# form -> (file or folder, options)
MODELS = {
    "lava": "lava.ckpt",
    "dora": "dora.ckpt",
    "adapter": "adapter",
    "depth-anything": "base",
    "transformers": "transformers",
    "tiny-rooms": "tiny-rooms",
}
SIZES = {"depth-anything": "56x42", "transformers": "56x42"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Everything unpacked, where the DoRA's base has the path that it recorded."""
    root = tmp_path_factory.mktemp("before")
    shutil.copytree(BEFORE, root, dirs_exist_ok=True)
    for archive in root.glob("*.tar.xz"):
        with tarfile.open(archive) as packed:
            packed.extractall(root, filter="data")
    return root


def predicted(model, *more) -> np.ndarray:
    fixed = ["--accelerator", "cpu", "--devices", "1", "--workers", "0"]
    given = ["picture.png", "--model", model, "--formats", "npy", "--overwrite"]
    main([*given, *fixed, "--output", "out", *more])
    return np.load("out/picture.png.depth.npy")


@pytest.mark.parametrize("form", MODELS)
def test_before__opens_and_predicts_the_same(folder, monkeypatch, form):
    monkeypatch.chdir(folder)
    size = ["--size", SIZES[form]] if form in SIZES else []
    depth = predicted(MODELS[form], *size)
    # Bit-equal on one machine; another's kernels sum in another order.
    np.testing.assert_allclose(depth, np.load(f"{form}.npy"), rtol=1e-5)


def test_before__the_packaged_network_now_predicts_at_its_own_size(folder, monkeypatch):
    monkeypatch.chdir(folder)
    np.testing.assert_allclose(
        predicted("tiny-rooms"), np.load("tiny-rooms.npy"), rtol=1e-5
    )


def test_before__onnx_and_peft_which_could_not_be_opened(folder, monkeypatch):
    monkeypatch.chdir(folder)
    whole = predicted("base", "--size", "56x42")
    onnx = predicted("onnx/model.onnx", "--size", "56x42")
    np.testing.assert_allclose(onnx, whole, rtol=1e-3)
    # The folder names a base that is not to be had, so the user does.
    peft = predicted("peft", "--base", "base", "--size", "42x28")
    np.testing.assert_allclose(peft, np.load("dora.npy"), rtol=1e-4)
