"""What a prediction is written as, by predict.py and by the service alike."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.prediction.camera import Intrinsics
from app.prediction.options import Format
from datamodules.errors import DataError
from datamodules.files.depths.meshes import write_glb
from datamodules.files.depths.writing import (
    Colormap,
    write_colour,
    write_exr,
    write_npy,
    write_pfm,
    write_ply,
    write_png16,
)

ENDINGS: dict[Format, str] = {
    "png": ".depth.png",
    "npy": ".depth.npy",
    "pfm": ".depth.pfm",
    "exr": ".depth.exr",
    "ply": ".ply",
    "glb": ".glb",
    "color": ".color.png",
}
METRES: tuple[Format, ...] = ("png", "ply", "glb", "color")
"""Formats that mean metres."""
COLOURED: tuple[Format, ...] = ("ply", "glb")
"""Formats that show the picture itself, and need intrinsics."""


@dataclass(frozen=True)
class Look:
    """What is the same for all files of a run."""

    max_depth: float
    """Metres; the far end of the colours."""
    png_scale: int
    """Units per metre of 16-bit PNGs; 0 where none are written."""
    colormap: Colormap

    def write(
        self,
        kind: Format,
        path: Path,
        depth: NDArray[np.float32],
        pixels: NDArray[np.uint8],
        intrinsics: Intrinsics | None,
    ) -> None:
        """Write one file.

        Args:
            kind: In which format.
            path: Where to.
            depth: (H, W) metres, or what a relative network predicts.
            pixels: (H, W, 3) RGB, for the formats that are `COLOURED`.
            intrinsics: Of the picture, for those.

        Raises:
            DataError: If it cannot be written, or intrinsics are missing.
        """
        if kind == "png":
            write_png16(path, depth, self.png_scale)
        elif kind == "npy":
            write_npy(path, depth)
        elif kind == "pfm":
            write_pfm(path, depth)
        elif kind == "exr":
            write_exr(path, depth)
        elif kind == "color":
            write_colour(path, depth, self.max_depth, self.colormap)
        elif intrinsics is None:
            raise DataError(
                f"{path.name}: the picture has no focal length in its EXIF data; give "
                "--fx (pixels) or --fov (degrees)"
            )
        elif kind == "glb":
            write_glb(path, depth, pixels, intrinsics)
        else:
            write_ply(path, depth, pixels, intrinsics)


def summary(
    depth: NDArray[np.float32], intrinsics: Intrinsics | None, *, assumed: bool
) -> dict[str, Any]:
    """What is noted of a prediction (H, W) beside its files."""
    rows, cols = depth.shape
    return {
        "size": [cols, rows],
        "depth_min": float(depth.min()),
        "depth_median": float(np.median(depth)),
        "depth_max": float(depth.max()),
        "intrinsics": intrinsics,
        "focal_is_assumed": assumed,
    }


def check_finite(depth: NDArray[np.float32]) -> None:
    """Refuse a prediction that is none.

    Raises:
        DataError: Saying in how many pixels.
    """
    if wrong := depth.size - int(np.count_nonzero(np.isfinite(depth))):
        raise DataError(
            f"the prediction is not finite in {wrong} of {depth.size} pixels; try "
            "--precision 32-true, or other weights"
        )
