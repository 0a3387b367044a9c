"""Whether files are whole."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from safetensors import safe_open


def passing(path: Path) -> bool:
    """Whether a file is nobody's result, or lies in a folder that is not."""
    return any(p.startswith(".") and p.endswith(".part") for p in path.parts)


def files_of(folder: Path) -> list[Path]:
    """Results below a folder."""
    found = (p for p in folder.rglob("*") if p.is_file())
    return sorted(p for p in found if not passing(p.relative_to(folder)))


def leftovers(folder: Path) -> list[str]:
    """What a killed process left and nobody took away."""
    found = (path.relative_to(folder) for path in folder.rglob("*"))
    return [f"{path} is left over" for path in found if passing(path)]


def broken(folder: Path) -> list[str]:
    """Files that do not open, each with the reason."""
    found = []
    for path in files_of(folder):
        opened = OPENED.get(path.suffix)
        try:
            if opened is not None:
                opened(path)
        except Exception as error:  # whatever it is, it is the finding
            found.append(f"{path.name} does not open: {type(error).__name__} {error}")
    return found


def same(found: bytes, expected: bytes, suffix: str) -> bool:
    """Whether two files of a prediction say the same, up to float32 rounding.

    What is left after a kill makes batches of other sizes, whose products are summed in
    another order: 1e-5 of a value in arrays, hence the next unit or colour in few
    pixels.
    """
    if found == expected:
        return True
    if suffix == ".npy":
        one, other = (np.load(io.BytesIO(content)) for content in (found, expected))
        return one.shape == other.shape and bool(
            np.allclose(one, other, rtol=1e-5, atol=0)
        )
    if suffix == ".png":
        one, other = (
            cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
            for content in (found, expected)
        )
        if one is None or other is None or one.shape != other.shape:
            return False
        return bool(np.mean(one != other) < 0.01)
    return False


def _picture(path: Path) -> None:
    content = path.read_bytes()
    if not content.endswith(b"IEND\xae\x42\x60\x82"):
        raise ValueError("it is cut off")
    if cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) is None:
        raise ValueError("it is no picture")


def _tensors(path: Path) -> None:
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118
            file.get_tensor(name)


def _table(path: Path) -> None:
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if None in row or None in row.values():
                raise ValueError(f"a row is not whole: {row}")


def _program(path: Path) -> None:
    import onnx

    onnx.checker.check_model(onnx.load(path))


OPENED: dict[str, Callable[[Path], object]] = {
    ".ckpt": lambda path: torch.load(path, weights_only=True),
    ".csv": _table,
    ".json": lambda path: json.loads(path.read_text()),
    ".npy": lambda path: np.load(path, allow_pickle=False),
    ".onnx": _program,
    ".png": _picture,
    ".safetensors": _tensors,
    ".yaml": lambda path: yaml.safe_load(path.read_text()),
}
