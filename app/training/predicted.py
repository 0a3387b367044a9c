"""A folder of depth maps that any program predicted, found by the names of frames."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import DataError
from datamodules.files.depths.reading import read_stored
from datamodules.files.images.decoding import IMAGE_SUFFIXES
from datamodules.files.pictures import visible_files

EXACT_FIRST = (".npy", ".npz", ".exr", ".pfm", ".tiff", ".tif", ".png")
"""Of two maps of one frame the first of these counts."""
PICTURES = re.compile(f"({'|'.join(map(re.escape, IMAGE_SUFFIXES))})$", re.IGNORECASE)
LEDGER = "predictions.json"
SHOWN = 3


class PredictedMaps:
    """Depth maps below a folder.

    Args:
        folder: A frame `scene/a.jpg` has its map in `scene/a`, `scene_a` or `a` there,
            with the ending of any kind of depth map, with `.depth` or the picture's own
            before it (`a.depth.npy`, `a.jpg.png`). Of a frame `file#12`, the twelfth of
            a file, the map's name ends with that number.
        depth_scale: Stored units per metre. None asks the `predictions.json` that
            predict.py leaves, and takes numbers that are not whole for metres.

    Raises:
        DataError: If there is none.
    """

    def __init__(self, folder: Path, depth_scale: float | None) -> None:
        if not folder.is_dir():
            raise DataError(f"--predictions {folder} is no folder")
        self.folder = folder
        self.scale = depth_scale
        self.png_scale = None if depth_scale else _scale_of(folder)
        self.paths = dict(_found(folder))
        if not self.paths:
            raise DataError(
                f"--predictions {folder} has no depth map; they end with "
                f"{', '.join(EXACT_FIRST)}"
            )
        self._numbered = _numbered(self.paths)
        self._frames: dict[Path, str] = {}

    def path(self, frame: str) -> Path | None:
        """The map of a frame; None if there is none.

        Raises:
            DataError: If another frame had it.
        """
        _, hash_, number = frame.rpartition("#")
        if hash_ and number.isdigit():
            found = self._numbered.get(int(number))
        else:
            found = next(filter(None, map(self.paths.get, _names(frame))), None)
        if found is not None:
            other = self._frames.setdefault(found, frame)
            if other != frame:
                raise DataError(
                    f"{found} could be of {other} and of {frame}; name the maps after "
                    "folder and file, as in scene/a.npy"
                )
        return found

    def read(self, path: Path) -> NDArray[np.float32]:
        """One map (H, W) in metres, or in whatever was predicted.

        Raises:
            DataError: If it cannot be read, or nothing says what its numbers mean.
        """
        stored = read_stored(path)
        scale = self.scale
        if scale is None and stored.dtype.kind != "f":
            scale = self.png_scale
            if scale is None:
                raise DataError(
                    f"{path} has whole numbers; give --depth_scale, the units per "
                    "metre: 1000 for millimetres, 256 for KITTI's"
                )
        depth: NDArray[np.float32] = stored.astype(np.float32) / np.float32(scale or 1)
        return depth

    def __str__(self) -> str:
        names = list(self.paths)
        more = ", ..." if len(names) > SHOWN else ""
        return f"{self.folder} ({', '.join(names[:SHOWN])}{more})"


def _found(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every map by its name below the folder; what is given last holds."""
    maps = [
        path
        for path in visible_files(folder)
        if path.suffix.lower() in EXACT_FIRST and not path.stem.endswith(".color")
    ]
    maps.sort(key=lambda path: EXACT_FIRST.index(path.suffix.lower()), reverse=True)
    for path in maps:
        below = path.relative_to(folder).with_suffix("").as_posix()
        yield PICTURES.sub("", below.removesuffix(".depth")), path


def _names(frame: str) -> Iterator[str]:
    """What the map of a frame may be called, the longest first."""
    parts = Path(PICTURES.sub("", frame)).parts
    for count in range(len(parts), 0, -1):
        yield "/".join(parts[-count:])
        yield "_".join(parts[-count:])


def _numbered(paths: dict[str, Path]) -> dict[int, Path]:
    """Maps by the number that their names end with."""
    ends = ((re.search(r"(\d+)$", name), path) for name, path in paths.items())
    return {int(end[1]): path for end, path in ends if end}


def _scale_of(folder: Path) -> float | None:
    """Units per metre of the whole numbers that predict.py wrote; None without such."""
    path = folder / LEDGER
    if not path.is_file():
        return None
    try:
        scale = json.loads(path.read_text())["header"]["png_units_per_metre"]
        return None if scale is None else float(scale)
    except (ValueError, KeyError, TypeError):
        raise DataError(
            f"{path} is not a list of predictions; remove it, or give --depth_scale"
        ) from None
