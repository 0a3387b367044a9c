"""A CSV of RGB-D frames: `image,depth[,fx,fy,cx,cy][,depth_scale]` and more."""

import math
import os
from array import array
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import DataError
from datamodules.files.lists.delimited import Delimited, open_delimited
from datamodules.files.lists.listing import missing_files
from datamodules.files.pairs import Labels, Pairs

NEEDED = ("image", "depth")
CAMERA = ("fx", "fy", "cx", "cy")
_NAMED = 3
"""So many of the files that do not exist are named."""


def read_table(
    table: Path,
    depth_scale: float,
    column: str | None = None,
    *,
    may_lack_it: bool = False,
) -> Pairs:
    """All frames of a table, in its order; columns that are not known do not matter.

    Paths are relative to the table. `fx` alone is a camera with square pixels whose
    principal point is the picture's middle; `cy` or `cx` that is not given, likewise.

    Args:
        table: Delimited by commas, semicolons, tabs or bars; see `open_delimited`.
        depth_scale: Stored units per metre where the table has no cell for it.
        column: Whose words become the pairs' `split`; None for none.
        may_lack_it: Whether a table without the column has no `split`.

    Raises:
        DataError: Naming the line, what is wrong with it, and what to change.
    """
    source = open_delimited(table, NEEDED)
    if may_lack_it and column not in source.columns:
        column = None
    reader = _Reader(source, column)
    for number, cells in source.rows:
        reader.add(number, cells)
    return reader.pairs(depth_scale)


class _Reader:
    """Columns that grow by a line."""

    def __init__(self, source: Delimited, column: str | None) -> None:
        places = {name: place for place, name in enumerate(source.columns)}
        self.path = source.path
        self.image, self.depth = (places[name] for name in NEEDED)
        self.scale = places.get("depth_scale")
        self.camera = any(name in places for name in CAMERA)
        self._cells_of_camera = _picker([places.get(name) for name in CAMERA])
        # What is read once need not be read again: most lines say the same.
        self._scales: dict[str, float] = {}
        self._cameras: dict[tuple[str, ...], tuple[float, ...]] = {}
        self.label = None if column is None else places.get(column.lower())
        if column is not None and self.label is None:
            raise DataError(
                f"{self.path} has no column {column!r}; it has "
                f"{', '.join(source.columns)}"
            )
        self.column = column
        self.lines, self.scales, self.cameras = array("q"), array("d"), array("f")
        self.images: list[str] = []
        self.depths: list[str] = []
        self.labels: list[str] = []

    def add(self, number: int, cells: list[str]) -> None:
        """One line."""
        image, depth = cells[self.image], cells[self.depth]
        if not (image and depth):
            name = "depth" if image else "image"
            raise self._wrong(number, f"no {name}; fill it in or remove the line")
        self.images.append(image)
        self.depths.append(depth)
        self.lines.append(number)
        if self.scale is not None:
            self.scales.append(self._scale(number, cells[self.scale]))
        if self.camera:
            self.cameras.extend(self._camera(number, self._cells_of_camera(cells)))
        if self.label is not None:
            if not cells[self.label]:
                raise self._wrong(number, f"no {self.column}; fill it in")
            self.labels.append(cells[self.label])

    def _scale(self, number: int, text: str) -> float:
        """Units per metre, NaN where they are not given."""
        if text not in self._scales:
            scale = self._above_zero(number, "depth_scale", text) if text else math.nan
            self._scales[text] = scale
        return self._scales[text]

    def _camera(self, number: int, given: tuple[str, ...]) -> tuple[float, ...]:
        """fx, fy, cx, cy, NaN where they are not given."""
        if given not in self._cameras:
            self._cameras[given] = self._new_camera(number, *given)
        return self._cameras[given]

    def _new_camera(
        self, number: int, fx: str, fy: str, cx: str, cy: str
    ) -> tuple[float, ...]:
        if not fx:
            if fy or cx or cy:
                raise self._wrong(number, "a camera without fx; give fx in pixels")
            return (math.nan,) * len(CAMERA)
        focal_x = self._above_zero(number, "fx", fx)
        focal_y = self._above_zero(number, "fy", fy) if fy else focal_x
        centre = (
            self._number(number, name, text) if text else math.nan
            for name, text in (("cx", cx), ("cy", cy))
        )
        return focal_x, focal_y, *centre

    def _above_zero(self, number: int, name: str, text: str) -> float:
        value = self._number(number, name, text)
        if not value > 0:
            what = "stored units per metre" if name == "depth_scale" else "pixels"
            raise self._wrong(number, f"{name} {text} must be above 0 ({what})")
        return value

    def _number(self, number: int, name: str, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or "_" in text:
            hint = " with a point, not a comma" if "," in text else ""
            raise self._wrong(number, f"{name} {text!r} is no number; write one{hint}")
        return value

    def _wrong(self, number: int, what: str) -> DataError:
        return DataError(f"{self.path} line {number}: {what}")

    def pairs(self, depth_scale: float) -> Pairs:
        """All of them, whose files exist."""
        if not self.images:
            raise DataError(f"{self.path} has no frames")
        self._check_files()
        scale: float | NDArray[np.float64] = depth_scale
        if self.scales:
            scales = np.array(self.scales)
            scale = np.where(np.isnan(scales), depth_scale, scales)
        camera = np.array(self.cameras, np.float32).reshape(-1, len(CAMERA))
        return Pairs(
            self.path.parent,
            self.images,
            self.depths,
            scale,
            camera if len(camera) else None,
            Labels.of(self.labels) if self.label is not None else None,
        )

    def _check_files(self) -> None:
        folder = str(self.path.parent)
        names = [*self.images, *self.depths]
        missing = missing_files(folder, names)
        if os.sep == "/" and any("\\" in names[place] for place in missing):
            # Written on Windows.
            for place in missing:
                names[place] = names[place].replace("\\", "/")
            again = missing_files(folder, [names[place] for place in missing])
            missing = [missing[place] for place in again]
            count = len(self.lines)
            self.images, self.depths = names[:count], names[count:]
        if missing:
            named = ", ".join(
                f"{names[place]} (line {self.lines[place % len(self.lines)]})"
                for place in missing[:_NAMED]
            )
            raise DataError(
                f"{self.path} names {len(missing)} files that do not exist, of "
                f"{len(names)}: {named}; paths are relative to {folder}"
            )


def _picker(places: list[int | None]) -> Callable[[list[str]], tuple[str, ...]]:
    """A function from a line's cells to those at some places, empty where None is."""
    get = itemgetter(*(-1 if place is None else place for place in places))
    return lambda cells: get([*cells, ""])
