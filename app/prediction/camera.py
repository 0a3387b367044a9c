"""With which camera a picture was taken, and what that makes of its prediction."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from datamodules.errors import DataError
from datamodules.files.cameras import focal_length_px
from datamodules.files.pictures import Picture
from datamodules.sizes import Size

Intrinsics = tuple[float, float, float, float]
"""fx, fy, cx, cy in pixels of the picture."""


@dataclass(frozen=True)
class Camera:
    """Intrinsics given on the command line, in pixels of the picture itself."""

    fx: float | None = None
    fy: float | None = None
    cx: float | None = None
    cy: float | None = None
    fov_deg: float | None = None
    """Horizontal field of view."""
    assumed_fov_deg: float | None = None
    """Likewise, of pictures of which nothing else tells."""

    def intrinsics(self, size: Size, exif_focal_px: float | None) -> Intrinsics | None:
        """Those of a picture (rows, cols); None where nothing tells.

        What is given goes before EXIF, and an assumption comes last.
        """
        rows, cols = size
        focal_px = exif_focal_px
        if self.fov_deg is not None:
            focal_px = focal_length_px(self.fov_deg, cols)
        elif focal_px is None and self.assumed_fov_deg is not None:
            focal_px = focal_length_px(self.assumed_fov_deg, cols)
        fx = focal_px if self.fx is None else self.fx
        if fx is None:
            return None
        fy = fx if self.fy is None else self.fy
        cx = (cols - 1) / 2 if self.cx is None else self.cx
        cy = (rows - 1) / 2 if self.cy is None else self.cy
        return fx, fy, cx, cy

    def assumes(self, exif_focal_px: float | None) -> bool:
        """Whether a picture's focal length is an assumption."""
        told = (self.fx, self.fov_deg, exif_focal_px)
        return self.assumed_fov_deg is not None and all(f is None for f in told)


def input_focal_px(intrinsics: Intrinsics, size: Size, shape: Size) -> float:
    """Focal length of a picture (rows, cols) in pixels of the network's input."""
    zoom = shape[0] / size[0] * shape[1] / size[1]
    return math.sqrt(intrinsics[0] * intrinsics[1] * zoom)


def input_focals_px(
    pictures: Sequence[Picture],
    headers: Sequence[tuple[Size | None, float | None]],
    inputs: Sequence[Size],
    camera: Camera,
) -> list[float]:
    """Focal length of each picture in pixels of the network's input.

    Args:
        pictures: For messages.
        headers: Size of each, None of one that cannot be read, and focal length by
            EXIF.
        inputs: (rows, cols) in which the network sees the whole of each.
        camera: What else tells.

    Returns:
        NaN for pictures that cannot be read.

    Raises:
        DataError: Naming pictures of which nothing tells.
    """
    found: list[float] = []
    unknown: list[str] = []
    for picture, (size, exif_px), shape in zip(pictures, headers, inputs, strict=True):
        if size is None:
            found.append(math.nan)
            continue
        intrinsics = camera.intrinsics(size, exif_px)
        if intrinsics is None:
            unknown.append(picture.name)
            continue
        found.append(input_focal_px(intrinsics, size, shape))
    if unknown:
        raise DataError(
            f"{len(unknown)} of {len(pictures)} pictures have no focal length in their "
            f"EXIF data ({', '.join(unknown[:3])}), without which this network cannot "
            "tell metres; give --fx (pixels) or --fov (degrees), or let those be taken "
            "for --assume-fov DEGREES"
        )
    return found
