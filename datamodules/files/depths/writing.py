"""Write one depth map: 16-bit PNG, .npy, .pfm, .exr, a point cloud, or a picture."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import OpenEXR
from numpy.typing import NDArray

from datamodules.errors import DataError
from datamodules.files.whole import whole_file, write_bytes

Colormap = Literal["turbo", "inferno", "magma", "viridis", "gray"]
COLORMAPS: dict[Colormap, int | None] = {
    "turbo": cv2.COLORMAP_TURBO,
    "inferno": cv2.COLORMAP_INFERNO,
    "magma": cv2.COLORMAP_MAGMA,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "gray": None,
}
PIXELS_MAX = np.iinfo(np.uint16).max
BAND_PIXELS = 1_000_000
NEAR_M = 0.25
"""Nearest depth that colours tell apart, at most."""


def png_scale(max_depth: float) -> int:
    """Units per metre with which `max_depth` metres fit 16 bits: 1000 or 256.

    Raises:
        DataError: If neither does.
    """
    for scale in (1000, 256):
        if max_depth * scale <= PIXELS_MAX:
            return scale
    raise DataError(f"depths up to {max_depth:g} m do not fit a 16-bit PNG; use .npy")


def write_png16(path: Path, depth: NDArray[np.float32], scale: int) -> None:
    """Write (H, W) metres as a 16-bit PNG of rounded metres x scale."""
    units = np.empty(depth.shape, np.uint16)
    for band in _bands(depth):
        units[band] = np.rint(depth[band] * np.float32(scale)).clip(0, PIXELS_MAX)
    write_bytes(path, _encoded(path, units))


def write_npy(path: Path, depth: NDArray[np.float32]) -> None:
    """Write (H, W) float32 metres as NumPy's own format."""
    with whole_file(path) as part, part.open("wb") as file:
        np.save(file, depth, allow_pickle=False)


def write_pfm(path: Path, depth: NDArray[np.float32]) -> None:
    """Write (H, W) float32 metres as a portable float map."""
    write_bytes(path, _encoded(path, depth))


def write_exr(path: Path, depth: NDArray[np.float32]) -> None:
    """Write (H, W) float32 metres as the channel Z of an OpenEXR file."""
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with (
        # A name of its own, since OpenEXR takes none that is not UTF-8.
        tempfile.TemporaryDirectory() as folder,
        OpenEXR.File(header, {"Z": np.ascontiguousarray(depth)}) as file,
    ):
        passing = Path(folder) / "depth.exr"
        try:
            file.write(str(passing))
        except RuntimeError as error:
            raise DataError(f"{path} cannot be written ({error})") from None
        write_bytes(path, passing.read_bytes())


def write_ply(
    path: Path,
    depth: NDArray[np.float32],
    image: NDArray[np.uint8],
    intrinsics: tuple[float, float, float, float],
) -> None:
    """Write a coloured point cloud, binary PLY, one vertex a pixel with depth.

    Camera coordinates in metres: x right, y down, z forward.

    Args:
        path: Where to.
        depth: (H, W) metres along the optical axis.
        image: (H, W, 3) RGB.
        intrinsics: fx, fy, cx, cy in pixels of `image`.
    """
    fx, fy, cx, cy = intrinsics
    names = [(axis, "<f4") for axis in "xyz"]
    names += [(colour, "u1") for colour in ("red", "green", "blue")]
    types = {"<f4": "float", "u1": "uchar"}
    count = np.count_nonzero(depth > 0)
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
    header += [f"property {types[kind]} {name}" for name, kind in names]
    with whole_file(path) as part, part.open("wb") as file:
        file.write("\n".join([*header, "end_header", ""]).encode())
        for band in _bands(depth):
            rows, cols = np.nonzero(depth[band] > 0)
            rows += band.start
            z = depth[rows, cols]
            vertices = np.empty(len(z), dtype=names)
            vertices["x"], vertices["y"] = (cols - cx) / fx * z, (rows - cy) / fy * z
            vertices["z"] = z
            for i, colour_name in enumerate(("red", "green", "blue")):
                vertices[colour_name] = image[rows, cols, i]
            file.write(vertices.tobytes())


def write_colour(
    path: Path,
    depth: NDArray[np.float32],
    max_depth: float,
    colormap: Colormap = "turbo",
) -> None:
    """Write (H, W) metres as a colour picture, near warm, far dark."""
    bgr = np.empty((*depth.shape, 3), np.uint8)
    for band in _bands(depth):
        shown = colour(depth[band], max_depth, colormap)
        cv2.cvtColor(shown, cv2.COLOR_RGB2BGR, dst=bgr[band])
    write_bytes(path, _encoded(path, bgr))


def colour(
    depth: NDArray[np.float32], max_depth: float, colormap: Colormap = "turbo"
) -> NDArray[np.uint8]:
    """RGB (H, W, 3) of a depth map (H, W) in metres; unknown depth is black.

    The range is fixed, not each picture's own, so that pictures can be compared:
    logarithmic, as depth errors are relative, from max_depth / 50, or `NEAR_M` where
    that is nearer, to max_depth.
    """
    known = depth > 0
    low = min(max_depth / 50, NEAR_M)
    position = np.log(np.where(known, depth, max_depth) / low) / np.log(max_depth / low)
    level = (255 * (1 - position.clip(0, 1))).astype(np.uint8)
    table = COLORMAPS[colormap]
    rgb: NDArray[np.uint8] = (
        cv2.cvtColor(level, cv2.COLOR_GRAY2RGB)
        if table is None
        else cv2.cvtColor(cv2.applyColorMap(level, table), cv2.COLOR_BGR2RGB)
    )
    rgb[~known] = 0
    return rgb


def _bands(depth: NDArray[np.float32]) -> Iterator[slice]:
    """Rows that are worked on at a time, so that what comes between stays small."""
    rows, cols = depth.shape
    step = max(BAND_PIXELS // max(cols, 1), 1)
    return (slice(row, row + step) for row in range(0, rows, step))


def _encoded(path: Path, pixels: NDArray[Any]) -> memoryview:
    done, content = cv2.imencode(path.suffix, pixels)
    assert done, path
    return content.data
