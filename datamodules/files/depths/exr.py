"""Depth in OpenEXR files, under the names that renderers give it."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
from numpy.typing import NDArray

from datamodules.errors import DataError

BACKGROUND = 1e10
"""What Blender writes where a ray meets nothing; in half precision it is infinite."""
# Best first. The third word of `ViewLayer.Depth.Z` alone would be `Normal.Z`, too.
_NAMES = (
    r"z",
    r"depth",
    r"(?:.*\.)?depth\.[zvyr]",
    r"v",
    r"y",
    r"r",
)
_COLOURS = ("r", "g", "b")


def read_exr(path: Path) -> NDArray[Any]:
    """The depth channel (H, W) of an OpenEXR file; a renderer's background is 0.

    Looked for in this order: `Z`, `depth`, a layer's `Depth.Z` or `Depth.V` (Blender:
    `ViewLayer.Depth.Z`), `V`, `Y`, and `R` where G and B are equal to it. Upper and
    lower case are alike.

    Raises:
        DataError: If the file cannot be read, or has none or several of one rank.
    """
    # OpenCV 5's wheels are built without OpenEXR.
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {
                name: channel.pixels
                for part in reversed(file.parts)
                for name, channel in part.channels.items()
            }
    except (RuntimeError, ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read as .exr ({error})") from None
    name = _chosen(list(channels), path)
    depth: NDArray[Any] = channels[name]
    colours = {key.lower(): pixels for key, pixels in channels.items()}
    if name.lower() == "r" and not all(
        np.array_equal(depth, colours.get(other, depth)) for other in _COLOURS
    ):
        raise DataError(
            f"{path} has the channels R, G and B with different numbers: a picture in "
            "colour; depth is one channel, such as Z"
        )
    far = depth.astype(np.float32, copy=False) >= np.float32(BACKGROUND)
    return np.where(far, depth.dtype.type(0), depth)


def _chosen(names: list[str], path: Path) -> str:
    for pattern in _NAMES:
        found = [n for n in names if re.fullmatch(pattern, n, re.IGNORECASE)]
        if len(found) > 1:
            raise DataError(
                f"{path} has the channels {', '.join(sorted(found))}; which one is the "
                "depth cannot be told: keep one"
            )
        if found:
            return found[0]
    raise DataError(
        f"{path} has the channels {', '.join(sorted(names))}; depth is looked for in "
        "Z, depth, LAYER.Depth.Z, LAYER.Depth.V, V, Y and R"
    )
