"""Read one depth map, and say clearly what is wrong with it."""

from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import OpenEXR
from numpy.typing import NDArray

from datamodules.errors import DataError
from datamodules.files.containers import PNG_SIGNATURE, NotWholeError, check_png

# Whoever reads frames reads both halves of them, and finds both here.
from datamodules.files.image_files import read_image as read_image

DEPTH_SUFFIXES = (".png", ".npy", ".pfm", ".exr")
Unknown = Literal["error", "ignore"]
Stored = NDArray[np.integer[Any] | np.floating[Any]]
PLAUSIBLE_M = (0.1, 100.0)


def read_depth(
    path: Path,
    depth_scale: float,
    unknown: Unknown = "error",
    *,
    may_be_empty: bool = False,
) -> NDArray[np.float32]:
    """One depth map in metres.

    Args:
        path: A 16-bit `.png`, or a `.npy`, `.pfm` or `.exr` with one number a pixel.
        depth_scale: Stored units per metre: 1000 for millimetres, 256 for KITTI, 1
            for metres.
        unknown: What to do with NaN, infinite and negative values: `error`, or
            `ignore`, which treats them like 0, as unknown.
        may_be_empty: Whether a map without any known depth is no error.

    Returns:
        (H, W) float32 metres, 0 where unknown.

    Raises:
        DataError: Naming the file, what is wrong with it and what to do.
    """
    return metres(
        _read_stored(path), str(path), depth_scale, unknown, may_be_empty=may_be_empty
    )


def metres(
    stored: Stored,
    path: str,
    depth_scale: float,
    unknown: Unknown = "error",
    *,
    may_be_empty: bool = False,
) -> NDArray[np.float32]:
    """Stored numbers as a checked depth map; `path` is for messages.

    Arguments and errors as of `read_depth`.
    """
    if stored.ndim == 3 and stored.shape[-1] == 1:
        stored = stored[..., 0]
    if stored.ndim != 2:
        raise DataError(
            f"{path} has shape {stored.shape}; a depth map has one number a pixel"
        )
    depth: NDArray[np.float32] = stored.astype(np.float32) / np.float32(depth_scale)
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
            "KITTI, 1 for metres"
        )
    return depth


def _read_stored(path: Path) -> Stored:
    suffix = path.suffix.lower()
    stored: Stored | None
    if suffix == ".png":
        stored = cv2.imdecode(_read(path), cv2.IMREAD_UNCHANGED)
        if stored is None:
            raise DataError(f"{path} is not a PNG that can be decoded; replace it")
        if stored.dtype != np.uint16:
            raise DataError(
                f"{path} stores {stored.dtype} with shape {stored.shape}; a depth PNG "
                "has one 16-bit number a pixel, an 8-bit one is a picture of depth "
                "and has lost the metres"
            )
    elif suffix == ".npy":
        try:
            stored = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise DataError(f"{path} cannot be read as .npy ({error})") from None
    elif suffix == ".pfm":
        stored = cv2.imdecode(_read(path), cv2.IMREAD_UNCHANGED)
        if stored is None:
            raise DataError(f"{path} is not a PFM that can be decoded; replace it")
    elif suffix == ".exr":
        stored = _read_exr(path)
    else:
        raise DataError(
            f"{path} has the suffix {suffix!r}; depth is read from "
            f"{', '.join(DEPTH_SUFFIXES)}"
        )
    return stored


def _read_exr(path: Path) -> Stored:
    # OpenCV 5's wheels are built without OpenEXR.
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {name: part.pixels for name, part in file.channels().items()}
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{path} cannot be read as .exr ({error})") from None
    for name in ("Z", "Y", "depth", "R"):
        if name in channels:
            pixels: Stored = channels[name]
            return pixels
    raise DataError(
        f"{path} has the channels {', '.join(sorted(channels))}; depth is looked for "
        "in Z, Y, depth and R"
    )


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
