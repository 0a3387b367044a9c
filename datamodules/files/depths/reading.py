"""Read one depth map, and say clearly what is wrong with it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.errors import DataError
from datamodules.files.depths.arrays import array_of
from datamodules.files.depths.exr import read_exr
from datamodules.files.depths.pfm import pfm_of
from datamodules.files.depths.units import PLAUSIBLE_M, likely_unit
from datamodules.files.images.containers import PNG_SIGNATURE, NotWholeError, check_png

# Whoever reads frames reads both halves of them, and finds both here.
from datamodules.files.images.decoding import read_image as read_image

DEPTH_SUFFIXES = (".png", ".npy", ".npz", ".pfm", ".exr", ".tif", ".tiff")
Unknown = Literal["error", "ignore"]
Stored = NDArray[np.integer[Any] | np.floating[Any]]


def read_depth(
    path: Path,
    depth_scale: float,
    unknown: Unknown = "error",
    *,
    unknown_values: Sequence[float] = (),
    may_be_empty: bool = False,
) -> NDArray[np.float32]:
    """One depth map in metres.

    Args:
        path: A 16-bit `.png`, a `.tif` of 16 bits or more, or a `.npy`, `.npz`, `.pfm`
            or `.exr`, with one number a pixel. Whole numbers are units as well.
        depth_scale: Stored units per metre: 1000 for millimetres, 256 for KITTI, 1
            for metres.
        unknown: What to do with NaN, infinite and negative values: `error`, or
            `ignore`, which treats them like 0, as unknown.
        unknown_values: More stored numbers that mean unknown, before any scaling.
        may_be_empty: Whether a map without any known depth is no error.

    Returns:
        (H, W) float32 metres, 0 where unknown.

    Raises:
        DataError: Naming the file, what is wrong with it and what to do.
    """
    return metres(
        _read_stored(path),
        str(path),
        depth_scale,
        unknown,
        unknown_values=unknown_values,
        may_be_empty=may_be_empty,
    )


def metres(
    stored: Stored,
    path: str,
    depth_scale: float,
    unknown: Unknown = "error",
    *,
    unknown_values: Sequence[float] = (),
    may_be_empty: bool = False,
) -> NDArray[np.float32]:
    """Stored numbers as a checked depth map; `path` is for messages.

    Axes of length 1 before or behind rows and columns do not count. Other arguments and
    errors as of `read_depth`.
    """
    stored = _plane(stored, path)
    # What is too large for float32 is infinite, and treated as that.
    with np.errstate(over="ignore"):
        depth: NDArray[np.float32] = stored.astype(np.float32) / np.float32(depth_scale)
    for value in unknown_values:
        depth[_equal(stored, value)] = 0
    wrong = ~np.isfinite(depth) | (depth < 0)
    if wrong.any():
        if unknown == "error":
            raise DataError(
                f"{path} has {int(wrong.sum())} NaN, infinite or negative values of "
                f"{wrong.size}; store unknown depth as 0, or set unknown: ignore"
            )
        depth[wrong] = 0
    known = depth[depth > 0]
    if known.size == 0:
        if may_be_empty:
            return depth
        raise DataError(f"{path} has no pixel with known depth; leave the frame out")
    median = float(np.median(known))
    if not PLAUSIBLE_M[0] <= median <= PLAUSIBLE_M[1]:
        raise DataError(
            f"{path} has a median depth of {median:g} m with depth_scale "
            f"{depth_scale:g}, outside {PLAUSIBLE_M[0]:g}-{PLAUSIBLE_M[1]:g} m; "
            "depth_scale is stored units per metre: 1000 for millimetres, 256 for "
            f"KITTI, 1 for metres; a stored {median * depth_scale:g} may be "
            f"{likely_unit(median * depth_scale)}"
        )
    return depth


def read_stored(path: Path) -> Stored:
    """The numbers (H, W) that a depth map is stored as, whatever they mean.

    Raises:
        DataError: Naming the file and what is wrong with it.
    """
    return _plane(_read_stored(path), str(path))


def _plane(stored: Stored, path: str) -> Stored:
    """Rows and columns of what may have axes of length 1 around them."""
    shape = stored.shape
    while stored.ndim > 2 and 1 in (stored.shape[0], stored.shape[-1]):
        stored = stored[0] if stored.shape[0] == 1 else stored[..., 0]
    if stored.ndim != 2 or stored.size == 0:
        raise DataError(f"{path} has shape {shape}; a depth map has one number a pixel")
    return stored


def _equal(stored: Stored, value: float) -> NDArray[np.bool_]:
    """Where a stored number is this one, to the precision that it is stored in."""
    if np.isnan(value):
        return np.isnan(stored)
    if stored.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.equal(stored, stored.dtype.type(value))
    return np.equal(stored, value)


def _read_stored(path: Path) -> Stored:
    suffix = path.suffix.lower()
    if suffix not in DEPTH_SUFFIXES:
        raise DataError(
            f"{path} has the suffix {suffix!r}; depth is read from "
            f"{', '.join(DEPTH_SUFFIXES)}"
        )
    if suffix == ".exr":
        return read_exr(path)
    content = _read(path)
    if suffix in (".npy", ".npz"):
        return array_of(content.tobytes(), str(path))
    if suffix == ".pfm":
        return pfm_of(content.tobytes(), str(path))
    stored: Stored | None = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    kind = "PNG" if suffix == ".png" else "TIFF"
    if stored is None:
        raise DataError(f"{path} is not a {kind} that can be decoded; replace it")
    if stored.dtype.itemsize == 1:
        raise DataError(
            f"{path} stores {stored.dtype} with shape {stored.shape}; a depth {kind} "
            "has one 16-bit number a pixel, an 8-bit one is a picture of depth "
            "and has lost the metres"
        )
    return stored


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    if not content:
        raise DataError(f"{path} is empty (0 bytes); copy it again")
    if content.startswith(PNG_SIGNATURE):
        try:
            check_png(content)
        except NotWholeError as problem:
            raise DataError(f"{path} {problem}; copy it again") from None
    return np.frombuffer(content, np.uint8)
