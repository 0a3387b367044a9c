"""With what camera frames were taken, where no table says it frame by frame."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import DataError
from datamodules.sizes import Size

Matrix = NDArray[np.float32]
"""(3, 3) intrinsics in pixels of the picture."""
CAMERA_FILE = "camera.json"
CALIBRATION_FILE = "calib_cam_to_cam.txt"


@dataclass(frozen=True)
class OneCamera:
    """One focal length for all frames, given in one of two ways."""

    focal_px: float | None = None
    """In pixels of the picture."""
    fov_deg: float | None = None
    """Horizontal field of view."""

    def __post_init__(self) -> None:
        if self.focal_px is not None and self.fov_deg is not None:
            raise DataError(
                f"focal_px {self.focal_px:g} and fov_deg {self.fov_deg:g} say one "
                "thing twice; give one of them"
            )
        if self.focal_px is not None and not 0 < self.focal_px < math.inf:
            raise DataError(f"focal_px {self.focal_px:g} must be above 0 pixels")
        if self.fov_deg is not None and not 0 < self.fov_deg < 180:
            raise DataError(
                f"fov_deg {self.fov_deg:g} must lie between 0 and 180 degrees"
            )

    def intrinsics(self, size: Size) -> Matrix | None:
        """Those of a picture (rows, cols); None where nothing was given."""
        if self.fov_deg is not None:
            return pinhole(focal_length_px(self.fov_deg, size[1]))
        return None if self.focal_px is None else pinhole(self.focal_px)


def focal_length_px(fov_deg: float, cols: int) -> float:
    """Of a pinhole camera with this horizontal field of view."""
    return cols / 2 / math.tan(math.radians(fov_deg) / 2)


def pinhole(fx: float, fy: float | None = None) -> Matrix:
    """Intrinsics whose principal point is not known: NaN, the middle."""
    fy = fx if fy is None else fy
    return np.array([[fx, 0, np.nan], [0, fy, np.nan], [0, 0, 1]], np.float32)


def read_camera_file(folder: Path) -> NDArray[np.float32] | None:
    """(4,) fx, fy, cx, cy of a folder's `camera.json`; None without one.

    `{"fx": ..., "fy": ..., "cx": ..., "cy": ...}` in pixels of the pictures; all but
    fx may be missing.

    Raises:
        DataError: If it says something else.
    """
    path = folder / CAMERA_FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        fx = float(content["fx"])
        values = [fx, float(content.get("fy", fx))]
        values += [float(content.get(name, "nan")) for name in ("cx", "cy")]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f'{path} does not say {{"fx": ..., "fy": ..., "cx": ..., "cy": ...}} in '
            f"pixels ({type(error).__name__}: {error})"
        ) from None
    if not all(0 < focal_px < math.inf for focal_px in values[:2]):
        raise DataError(f"{path}: fx {fx:g} and fy {values[1]:g} must be above 0")
    return np.array(values, np.float32)


class KittiCameras:
    """Rectified cameras of KITTI's raw drives, by their `calib_cam_to_cam.txt`.

    Args:
        raw: Where `2011_09_26/...` starts.
    """

    def __init__(self, raw: Path) -> None:
        self.raw = raw
        self._known: dict[tuple[str, str], Matrix | None] = {}

    def __call__(self, image: str, list_focal_px: float | None) -> Matrix | None:
        """The camera of a picture; of a drive without a file, the list's focal length.

        Args:
            image: `DATE/DRIVE/image_02/data/N.png`, below raw.
            list_focal_px: What the list says.
        """
        parts = Path(image).parts
        camera = next((p for p in parts if p.startswith("image_")), "image_02")
        # The day is the folder above the drive's, also where a path is absolute.
        day = parts[-5] if len(parts) >= 5 else parts[0]
        key = (day, camera.removeprefix("image_")[:2])
        if key not in self._known:
            self._known[key] = self._read(*key)
        found = self._known[key]
        if found is None and list_focal_px is not None:
            return pinhole(list_focal_px)
        return found

    def _read(self, date: str, camera: str) -> Matrix | None:
        path = self.raw / date / CALIBRATION_FILE
        if not path.is_file():
            return None
        for line in path.read_text().splitlines():
            name, _, numbers = line.partition(":")
            if name == f"P_rect_{camera}":
                try:
                    return np.array(numbers.split(), np.float32).reshape(3, 4)[:, :3]
                except ValueError:
                    break
        raise DataError(f"{path} has no P_rect_{camera} of twelve numbers")
