"""Text files that name pictures, one a line: plain ones, and the lists of the field."""

import glob
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from datamodules.errors import DataError
from datamodules.files.image_files import IMAGE_SUFFIXES
from datamodules.files.videos import VIDEO_SUFFIXES

PROBED = 50
"""So many of the first names are looked for in each folder they may start from."""
FOLDERS = 1000
"""In so many folders below the list's own, at most."""
_SUFFIXES = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
_TIME = re.compile(r"\d+(\.\d+)?")
_MONODEPTH = re.compile(r"(\S+)\s+(\d+)\s+([lr])")
_CAMERAS = {"l": "image_02", "r": "image_03"}


def read_picture_list(path: Path) -> list[Path]:
    """What a list names, in its order; what is missing, where it should be.

    A line is a picture, video, folder or pattern, or it has columns: `image depth
    focal` of NYU and KITTI, two to five of them, of which the first is the picture;
    TUM's `time image`; monodepth2's `drive frame side`. Lines that begin with `#` are
    none. A `.png` that is there as `.jpg` is that.

    Paths start from the list's folder, the one where the command runs, the list's
    parent, or one up to two levels below the list; those of another machine's root
    lose their first parts. The place is taken where most of the first pictures are.

    Raises:
        DataError: If the list cannot be read, a line names no picture, or none of the
            first pictures is anywhere.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the list {path} cannot be read ({error})") from None
    names = [
        _name(line.strip(), path, number)
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.startswith("#")
    ]
    if not names:
        return []
    root, dropped = _place(path, names)
    return [_below(root, name, dropped) for name in names]


def _name(line: str, source: Path, number: int) -> str:
    """The picture of a line."""
    columns = line.split()
    if len(columns) == 1 or any(_is_there(p / line) for p in (source.parent, Path())):
        return line
    if columns[0].lower().endswith(_SUFFIXES):
        return columns[0]
    if found := _MONODEPTH.fullmatch(line):
        drive, frame, side = found.groups()
        return f"{drive}/{_CAMERAS[side]}/data/{int(frame):010d}.png"
    if _TIME.fullmatch(columns[0]) and columns[1].lower().endswith(_SUFFIXES):
        return columns[1]
    if columns[-1].lower().endswith(_SUFFIXES):
        return line  # a name with spaces
    raise DataError(
        f"{source} line {number} names no picture: {line!r}; a line is a picture, a "
        "folder or a pattern, or columns with the picture first"
    )


def _place(source: Path, names: list[str]) -> tuple[Path, int]:
    """The folder that names start from, and how many of their first parts to drop."""
    probed = names[:PROBED]
    parts = [len(Path(name).parts) for name in probed if name.startswith("/")]
    # The root's own part is dropped first: a leading / is no root in many lists.
    drops = range(max(parts, default=1))

    def count(place: tuple[Path, int], of: list[str] = probed) -> int:
        return sum(_is_there(_below(place[0], name, place[1])) for name in of)

    near = (source.parent, Path(), source.parent.parent)
    best = max(((folder, n) for n in drops for folder in near), key=count)
    if not count(best):
        places = ((f, n) for f in _folders(source.parent) for n in drops)
        likely = [place for place in places if count(place, probed[:3])]
        best = max([best, *likely], key=count)
    if not count(best):
        raise DataError(
            f"{source}: none of {', '.join(probed[:3])} is there, from the list's own "
            "folder, those below it or the present one; put the list where its paths "
            "start"
        )
    return best


def _folders(folder: Path) -> Iterator[Path]:
    """Visible folders up to two levels below one."""
    found = (p for depth in ("*", "*/*") for p in sorted(folder.glob(depth)))
    return islice((p for p in found if p.is_dir() and p.name[0] != "."), FOLDERS)


def _below(root: Path, name: str, dropped: int) -> Path:
    path = Path(name)
    parts = path.parts[dropped:] if path.is_absolute() else path.parts
    found = root.joinpath(*parts)
    photograph = found.with_suffix(".jpg")
    if found.suffix == ".png" and not found.exists() and photograph.exists():
        return photograph
    return found


def _is_there(path: Path) -> bool:
    if glob.has_magic(str(path)):
        return any(True for _ in glob.iglob(str(path), recursive=True))  # noqa: PTH207
    return path.exists()
