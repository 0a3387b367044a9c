"""Which depths are known of which picture: from a table, or a folder of sparse maps."""

import hashlib
import os
import warnings
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import DataError
from datamodules.files.depths.reading import DEPTH_SUFFIXES, read_depth
from datamodules.files.images.headers import Exif
from datamodules.files.lists.point_tables import read_points
from datamodules.files.pictures import Picture, visible_files
from datamodules.photographs import size_and_focal
from datamodules.sizes import Size

MAP_POINTS = 1000
"""Taken of a map that knows more: so many leave no doubt, and 100,000 pictures' fit."""
_NAMED = 3
"""So many pictures are named in a message."""
Points = NDArray[np.float32]
"""(N, 3): x and y in pixels of the picture as it is predicted, from the middle of the
upper left one, and depth in metres."""


@dataclass(frozen=True)
class KnownPoints:
    """Points of the pictures of a run."""

    by_name: Mapping[str, Points]
    """By a picture's name; pictures without points are left out."""
    sha256: str
    """Of the table, or of the maps and their names."""

    @property
    def farthest_m(self) -> float:
        """Depth of the farthest point."""
        return max(float(points[:, 2].max()) for points in self.by_name.values())


def known_points(
    source: Path, units_per_metre: float | None, pictures: Sequence[Picture], exif: Exif
) -> KnownPoints:
    """Read the points, and find the picture of each.

    Args:
        source: A table (`read_points`), or a folder of depth maps that are called as
            the pictures are: `a.png` or `a.jpg.png` for `a.jpg`, in the same folders.
        units_per_metre: Of the maps.
        pictures: Of the run; points of others are warned of.
        exif: Whether pictures are turned upright before x and y mean anything.

    Raises:
        DataError: If something is wrong with the points, naming the place.
    """
    if source.is_dir():
        if units_per_metre is None:
            raise DataError(
                f"--points {source} is a folder of depth maps; give --points-scale, "
                "too: stored units per metre, 1000 for millimetres, 256 for KITTI, 1 "
                "for metres"
            )
        maps, unused = _maps(source, pictures)
        found = {
            picture.name: _of_map(path, units_per_metre, picture, exif)
            for picture, path in maps
        }
        sha256 = _sha256((path, path.relative_to(source)) for _, path in maps)
    else:
        if units_per_metre is not None:
            raise DataError(
                f"--points-scale has no effect: the depths of {source} are metres"
            )
        found, unused = _of_table(source, pictures, exif)
        sha256 = _sha256([(source, Path())])
    if not found:
        raise DataError(
            f"{source} has no points of any of the {len(pictures)} pictures (it has "
            f"{_first(unused) or 'none'}); a picture is called by its path from the "
            f"{'folder' if source.is_dir() else 'table'}, or by its name in the output"
        )
    if unused:
        warnings.warn(
            f"{source} has points of {len(unused)} pictures that are not predicted "
            f"({_first(unused)})",
            stacklevel=2,
        )
    return KnownPoints(found, sha256)


def _of_table(
    table: Path, pictures: Sequence[Picture], exif: Exif
) -> tuple[dict[str, Points], list[str]]:
    """Points by picture, and which pictures of the table are not predicted."""
    names = {picture.name: picture for picture in pictures}
    paths = {_path(picture): picture for picture in pictures}

    def meant(image: str) -> Picture | None:
        beside, here = _absolute(table.parent / image), _absolute(Path(image))
        return paths.get(beside) or paths.get(here) or names.get(image)

    cells: dict[str, tuple[Picture | None, Size | None]] = {}
    found: dict[str, array[float]] = {}
    for point in read_points(table):
        if point.image not in cells:
            picture = meant(point.image)
            size = None if picture is None else size_and_focal(picture, exif)[0]
            cells[point.image] = picture, size
        picture, size = cells[point.image]
        if picture is None:
            continue
        if size is not None and not _inside(point.x, point.y, size):
            raise DataError(
                f"{table} line {point.number} has the point {point.x:g}, {point.y:g}, "
                f"outside of {picture.name}, which as shown is {size[1]} pixels wide "
                f"and {size[0]} high; x and y count from 0 at the upper left"
            )
        values = found.setdefault(picture.name, array("f"))
        values.extend((point.x, point.y, point.depth_m))
    whole = {k: np.frombuffer(v, np.float32).reshape(-1, 3) for k, v in found.items()}
    return whole, [image for image, (picture, _) in cells.items() if picture is None]


def _maps(
    folder: Path, pictures: Sequence[Picture]
) -> tuple[list[tuple[Picture, Path]], list[str]]:
    """The map of each picture that has one, and which maps are no picture's.

    Raises:
        DataError: If it is not clear whose map one is.
    """
    maps: dict[str, list[Path]] = {}
    for path in visible_files(folder):
        if path.suffix.lower() in DEPTH_SUFFIXES:
            key = path.relative_to(folder).with_suffix("").as_posix()
            maps.setdefault(key, []).append(path)
    found: list[tuple[Picture, Path]] = []
    owners: dict[Path, Picture] = {}
    for picture in pictures:
        keys = dict.fromkeys(
            (picture.name, Path(picture.name).with_suffix("").as_posix())
        )
        own = [path for key in keys for path in maps.get(key, ())]
        if len(own) > 1:
            raise DataError(
                f"{own[0]} and {own[1]} are both called as {picture.name} is; keep one"
            )
        for path in own:
            other = owners.setdefault(path, picture)
            if other is not picture:
                raise DataError(
                    f"{path} is called as {other.name} and as {picture.name} are; name "
                    f"it {picture.name}{path.suffix}, if it is that picture's"
                )
            found.append((picture, path))
    every = (path for paths in maps.values() for path in paths)
    return found, [p.relative_to(folder).as_posix() for p in every if p not in owners]


def _of_map(path: Path, units_per_metre: float, picture: Picture, exif: Exif) -> Points:
    """Points of a map, whose pixels may be larger than the picture's."""
    depth = read_depth(path, units_per_metre, "ignore")
    (rows, cols), size = depth.shape, size_and_focal(picture, exif)[0]
    if size is None:
        size = rows, cols
    across, down = size[1] / cols, size[0] / rows
    if abs(across - down) * rows > max(across, down):
        raise DataError(
            f"{path} is {cols} pixels wide and {rows} high, but {picture.name} as "
            f"shown {size[1]} and {size[0]}, another shape"
        )
    known = np.flatnonzero(depth)
    if len(known) > MAP_POINTS:
        known = np.random.default_rng(0).choice(known, MAP_POINTS, replace=False)
    y, x = np.divmod(known, cols)
    places = (x + 0.5) * across - 0.5, (y + 0.5) * down - 0.5
    return np.stack([*places, depth.flat[known]], 1).astype(np.float32)


def _inside(x: float, y: float, size: Size) -> bool:
    return -0.5 <= x < size[1] - 0.5 and -0.5 <= y < size[0] - 0.5


def _absolute(path: Path) -> str:
    return os.path.normpath(path.absolute())


def _path(picture: Picture) -> str:
    path = _absolute(picture.path)
    return path if picture.frame is None else f"{path}/{picture.frame:06d}"


def _sha256(files: Iterable[tuple[Path, Path]]) -> str:
    """Of files and the names that they go by."""
    whole = hashlib.sha256()
    for part in _parts(files):
        whole.update(part)
    return whole.hexdigest()


def _parts(files: Iterable[tuple[Path, Path]]) -> Iterator[bytes]:
    for path, name in files:
        with path.open("rb") as file:
            yield name.as_posix().encode() + b"\0"
            yield hashlib.file_digest(file, "sha256").digest()


def _first(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
