"""Tensors and descriptions as files: whole, strict, with the mode of any other file."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from datamodules.errors import UserError
from datamodules.files.whole import whole_file

KEY = "lava_depth"
"""Under which our description stands in checkpoints and in others' metadata."""
Shapes = Mapping[str, tuple[int, ...]]
NAMED = 8
"""So many of the names that do not fit are said."""


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None
) -> None:
    """Write a whole safetensors file.

    Args:
        path: Its folder exists.
        tensors: Copied where they share memory, which the format does not allow.
        notes: Strings for the file's metadata.
    """
    storages: set[int] = set()
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        flat = tensor.detach().cpu().contiguous()
        place = flat.untyped_storage().data_ptr()
        stored[name] = flat.clone() if place in storages else flat
        storages.add(place)
    with whole_file(path) as part:
        save_file(stored, part, metadata={"format": "pt", **(notes or {})})


def read_tensors(
    path: Path, error: type[UserError], *, mapped: bool = False
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Args:
        path: Of the file.
        error: What to raise.
        mapped: Do not read them yet, for who copies them at once: a mapped file that
            somebody writes over ends the process that looks into it.

    Raises:
        error: If the file is missing, cut off or no safetensors file.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if not mapped:
                tensors = {name: tensor.clone() for name, tensor in tensors.items()}
            return tensors, dict(file.metadata() or {})
    except (OSError, SafetensorError, ValueError) as problem:
        raise error(
            f"{path} cannot be read ({_first_line(problem)}); it may be missing "
            "or cut off: copy it again"
        ) from None


def read_torch(path: Path, error: type[UserError]) -> object:
    """Content of a file of `torch.save`, tensors and plain types only.

    Raises:
        error: If it cannot be read, or holds more: unpickling that could run any code.
    """
    try:
        # Mapped, so that who only asks what a file is does not read all of it.
        content: object = torch.load(
            path, map_location="cpu", weights_only=True, mmap=is_zipfile(path)
        )
    except UnpicklingError as problem:
        raise error(
            f"{path} holds more than tensors ({_first_line(problem)}); unpickling it "
            "could run any code, so it is refused: convert it to safetensors"
        ) from None
    except Exception as problem:
        # Damaged zip, truncated tensor and missing file have no common class.
        raise error(
            f"{path} cannot be read as weights or checkpoint ({_first_line(problem)}); "
            "it may be cut off or something else: copy it again"
        ) from None
    return content


def read_json(path: Path, error: type[UserError]) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        error: If the file is missing, or holds no JSON object.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as problem:
        raise error(f"{path} cannot be read ({problem.strerror})") from None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise error(f"{path} is not valid JSON with an object; save it again")
    return content


def misfits(expected: Shapes, tensors: Mapping[str, Tensor]) -> list[str]:
    """What keeps tensors from being exactly the expected ones, in words; [] if nothing.

    Args:
        expected: Name to shape.
        tensors: What was found.
    """
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - expected.keys())
    shapes = [
        f"{name} is {tuple(tensors[name].shape)} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    found = (("missing", missing), ("unexpected", unexpected), ("shape", shapes))
    return [f"{what} {_some(names)}" for what, names in found if names]


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Name to shape."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Names of tensors with NaN or infinite values, in words; "" for none."""
    wrong = [n for n, t in tensors.items() if not bool(torch.isfinite(t).all())]
    return _some(wrong) if wrong else ""


def _first_line(problem: Exception) -> str:
    text = re.split(r"[\n.]", str(problem).strip())[0]
    return text or type(problem).__name__


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
