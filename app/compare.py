"""`python -m app.compare A B`: two runs image by image, and how sure that is.

The scores are those that `train.py test --per_image true` wrote.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from app.errors import one_line_errors
from app.prediction.parser import OneLine
from datamodules.errors import DataError
from datamodules.files.lists.delimited import open_delimited

Unit = Literal["image", "folder"]
Image = tuple[str, int]
"""Its path, and which of the rows of that path it is."""
Rows = dict[Image, dict[str, float]]
"""Scores of each image."""
CONFIDENCE = 0.95
DESCRIPTION = """Compare two runs by the scores of their test images.

A and B are the CSVs that `train.py test --per_image true` writes, or folders with one.
The difference B - A is taken image by image; its interval is Student's, of 95 %."""


@dataclass(frozen=True)
class Difference:
    """What one metric is in two runs."""

    first: float
    second: float
    change: float
    """Mean of second - first over units."""
    half: float
    """Half the width of its interval; NaN of a single unit."""
    better: float
    """Part of the units where the second is larger."""


@one_line_errors
def main(args: list[str] | None = None) -> None:
    """Print the table of two runs."""
    parser = OneLine("python -m app.compare", description=DESCRIPTION)
    parser.add_argument("first", metavar="A")
    parser.add_argument("second", metavar="B")
    parser.add_argument(
        "--by",
        choices=["image", "folder"],
        default="image",
        help="What counts as one: folders are averaged first, since neighbouring "
        "frames of a video are nearly alike and make intervals too narrow.",
    )
    given = parser.parse_args(args)
    paths = [found(Path(name).expanduser()) for name in (given.first, given.second)]
    one, two = (read(path) for path in paths)
    by: Unit = given.by
    rows, shared = compared(one, two, by)
    units = f"{shared} images" if by == "image" else f"{shared} folders"
    print(
        f"A {paths[0]}\nB {paths[1]}\n{units}, B - A with its {CONFIDENCE:.0%} interval"
    )
    print(f"{'':9} {'A':>9} {'B':>9} {'B - A':>9} {'+-':>8}  B larger in")
    for name, row in rows.items():
        print(
            f"{name:9} {row.first:9.4f} {row.second:9.4f} {row.change:+9.4f} "
            f"{row.half:8.4f}  {row.better:.0%}"
        )
    for label, alone in (("A", len({*one} - {*two})), ("B", len({*two} - {*one}))):
        if alone:
            print(f"WARNING: {alone} images are in {label} alone and were left out")
    if by == "image" and (folders := len({Path(p).parent for p, _ in one})) > 1:
        print(f"the images are of {folders} folders: --by folder asks for less luck")


def found(path: Path) -> Path:
    """The CSV that a user means.

    Raises:
        DataError: If there is none, or more than one.
    """
    if path.is_file():
        return path
    tables = sorted(path.glob("test_*.csv")) if path.is_dir() else []
    if len(tables) != 1:
        what = ", ".join(table.name for table in tables) or "none"
        raise DataError(
            f"{path} should be one CSV of `train.py test --per_image true`, or a "
            f"folder with one; it has {what}"
        )
    return tables[0]


def read(path: Path) -> Rows:
    """Scores by image.

    Raises:
        DataError: If it is no such table.
    """
    given = open_delimited(path, ["image"], "[,delta1][,...]")
    names = [name for name in given.columns if name != "image"]
    times: Counter[str] = Counter()
    rows: Rows = {}
    for line, cells in given.rows:
        row = dict(zip(given.columns, cells, strict=True))
        image = row.pop("image")
        try:
            rows[image, times[image]] = {name: float(row[name]) for name in names}
        except ValueError as error:
            raise DataError(
                f"{path} line {line} has a score that is no number ({error})"
            ) from None
        times[image] += 1
    if not rows or not names:
        raise DataError(f"{path} has no rows with scores beside the column image")
    return rows


def compared(first: Rows, second: Rows, by: Unit) -> tuple[dict[str, Difference], int]:
    """Each metric that both have, over the images that both have.

    Args:
        first: Of A.
        second: Of B.
        by: What is averaged before differences are taken.

    Returns:
        By metric, and how many units there were.

    Raises:
        DataError: If they share nothing.
    """
    images = sorted(first.keys() & second.keys())
    if not images:
        raise DataError("A and B have no image in common: they are of other test sets")
    names = [name for name in first[images[0]] if name in second[images[0]]]
    rows = {}
    for name in names:
        one, two = (
            _units([run[i][name] for i in images], images, by)
            for run in (first, second)
        )
        change = two - one
        rows[name] = Difference(
            float(one.mean()),
            float(two.mean()),
            float(change.mean()),
            half_width(change),
            float((change > 0).mean()),
        )
    return rows, len(one)


def half_width(values: NDArray[np.float64]) -> float:
    """Half of the interval of the mean of values (n,), by Student's t; NaN of one."""
    if len(values) < 2:
        return float("nan")
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
    return float(quantile * stats.sem(values))


def _units(
    values: Sequence[float], images: Sequence[Image], by: Unit
) -> NDArray[np.float64]:
    if by == "image":
        return np.array(values)
    folders: dict[Path, list[float]] = defaultdict(list)
    for (path, _), value in zip(images, values, strict=True):
        folders[Path(path).parent].append(value)
    return np.array([np.mean(own) for own in folders.values()])


if __name__ == "__main__":
    main()
