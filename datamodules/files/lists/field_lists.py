"""List files of the field: `image depth focal` per line, roots apart."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.errors import DataError

PROBED = 50
"""How many lines are looked for below each folder that may be the root."""


@dataclass(frozen=True)
class ListLine:
    """One frame of a list."""

    image: str
    depth: str | None
    """None where the list says so: there is no truth for this image."""
    focal_px: float | None
    """None where the list has no such column."""


def list_paths(
    root: Path,
    train: str | Path | None,
    test: str | Path | None,
    usual: tuple[str, str],
) -> dict[str, Path]:
    """The lists of train and test: as given, else by their usual names in the root."""
    given = zip(("train", "test"), (train, test), usual, strict=True)
    return {
        split: Path(path).expanduser() if path else root / name
        for split, path, name in given
    }


def read_list(path: Path) -> list[ListLine]:
    """All lines of a list file (BTS, ZoeDepth, NeWCRFs: NYU, KITTI).

    Three columns `image depth focal`, or five with the right camera's image and depth
    behind, which are not used, or two without the focal length (Depth Anything V2).
    Lines that begin with # are left out. A leading `/` is no root and is dropped, where
    there is no such file.

    Raises:
        DataError: If the file is missing, empty, or a line has other columns.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the list {path} cannot be read ({error})") from None
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        columns = line.split()
        if not columns or columns[0].startswith("#"):
            continue
        if len(columns) not in (2, 3, 5):
            raise DataError(
                f"{path} line {number} has {len(columns)} columns; a list has two, "
                "image depth, three, image depth focal, or five"
            )
        try:
            focal_px = float(columns[2]) if len(columns) > 2 else None
        except ValueError:
            raise DataError(
                f"{path} line {number}: the third column, {columns[2]!r}, is no focal "
                "length; lists with a second depth there are not supported"
            ) from None
        image, depth = (
            name if Path(name).is_file() else name.lstrip("/") for name in columns[:2]
        )
        lines.append(ListLine(image, None if depth == "None" else depth, focal_px))
    if not lines:
        raise DataError(f"the list {path} is empty")
    return lines


def read_truth(path: Path) -> list[tuple[ListLine, str]]:
    """The lines of a list that have a depth map, and its name.

    Raises:
        DataError: As `read_list`, or if all say None.
    """
    lines = [(line, line.depth) for line in read_list(path) if line.depth is not None]
    if not lines:
        raise DataError(f"{path}: no line has a depth map, all say None")
    return lines


def choose_root(
    names: Sequence[str], root: Path, folders: Sequence[str], what: str
) -> Path:
    """The first folder below `root` that has the most of the first names.

    Args:
        names: Paths of a list.
        root: What the user gave.
        folders: Where data sets are unpacked to, relative to root; "" is root itself.
        what: For the message.

    Raises:
        DataError: If none of the folders has any of the names.
    """
    if not root.is_dir():
        raise DataError(f"data root {root} does not exist; give the folder of {what}")
    probed = names[:PROBED]

    def found(folder: str) -> int:
        return sum((root / folder / name).is_file() for name in probed)

    best = max(folders, key=found)
    if found(best) == 0:
        tried = ", ".join(str(root / folder) for folder in folders)
        raise DataError(
            f"{what}: none of {', '.join(probed[:3])} lies below {tried}; give the "
            "folder that the list's paths start from"
        )
    return root / best


class PrefixProbe:
    """Finds files of which a list leaves out a folder, once per drive.

    Args:
        root: Where to look.
        prefixes: Folders that may stand between root and a name.
        drive_of: The part of a name that shares its prefix with others.
    """

    def __init__(
        self, root: Path, prefixes: Sequence[str], drive_of: Callable[[str], str]
    ) -> None:
        self.root, self.prefixes, self.drive_of = root, prefixes, drive_of
        self._known: dict[str, str] = {}

    def __call__(self, name: str) -> Path:
        """The file, or where it should be if there is none."""
        drive = self.drive_of(name)
        prefix = self._known.get(drive)
        if prefix is None:
            found = (p for p in self.prefixes if (self.root / p / name).is_file())
            prefix = next(found, None)
            if prefix is None:
                return self.root / self.prefixes[0] / name
            self._known[drive] = prefix
        return self.root / prefix / name
