"""Known depths at some pixels of pictures, one a line: image, x, y, depth."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from datamodules.errors import DataError
from datamodules.files.lists.delimited import open_delimited

COLUMNS = ("image", "x", "y", "depth")


class Point(NamedTuple):
    """One line."""

    number: int
    """Of the line."""
    image: str
    x: float
    """Columns from the middle of the left one, pixels."""
    y: float
    """Rows from the middle of the upper one, pixels."""
    depth_m: float


def read_points(table: Path) -> Iterator[Point]:
    """The lines of a table with these four columns, in any order.

    Args:
        table: Delimited by commas, semicolons, tabs or bars; see `open_delimited`.

    Raises:
        DataError: Naming the line, what is wrong with it, and what to change.
    """
    source = open_delimited(table, COLUMNS, optional="")
    unknown = [name for name in source.columns if name and name not in COLUMNS]
    if unknown:
        raise DataError(
            f"{table} has the unknown columns {', '.join(unknown)}; it may have "
            f"{', '.join(COLUMNS)} alone"
        )
    places = [source.columns.index(name) for name in COLUMNS]
    for number, cells in source.rows:
        image, *numbers = (cells[place] for place in places)
        if not image:
            raise DataError(f"{table} line {number} has no image; fill it in")
        x, y, depth_m = (
            _number(table, number, name, text)
            for name, text in zip(COLUMNS[1:], numbers, strict=True)
        )
        if depth_m <= 0:
            raise DataError(
                f"{table} line {number} has the depth {depth_m:g}; it must be above 0 "
                "metres: leave out points whose depth is not known"
            )
        yield Point(number, image, x, y, depth_m)


def _number(table: Path, line: int, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"{table} line {line} has {text or 'nothing'!r} for {name}; give a number "
            "such as 2.5"
        )
    return value
