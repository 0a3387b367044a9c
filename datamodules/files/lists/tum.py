"""TUM RGB-D sequences: pictures and depths with a time each, matched by it."""

import re
from bisect import bisect_left, bisect_right
from pathlib import Path

from datamodules.errors import DataError
from datamodules.files.lists.listing import missing_files

DEPTH_SCALE = 5000
"""Stored units per metre of all sequences of the data set."""
APART_S = 0.02
"""Times that are farther apart do not match: `associate.py --max_difference`."""
ASSOCIATIONS = ("associations.txt", "associated.txt", "associate.txt")
LISTS = ("rgb.txt", "depth.txt")
_DEPTH = re.compile(r"(?:^|/)depth", re.IGNORECASE)


def is_sequence(folder: Path) -> bool:
    """Whether a folder has the lists of a sequence."""
    return any((folder / name).is_file() for name in ASSOCIATIONS) or all(
        (folder / name).is_file() for name in LISTS
    )


def sequence_pairs(folder: Path) -> list[tuple[str, str]]:
    """Picture and depth of each frame, relative to the folder, in the order of time.

    From `associations.txt` (`time rgb time depth`, or depth first), else from `rgb.txt`
    and `depth.txt`, matched as TUM's `associate.py` does: the closest pairs first, each
    file once, at most 0.02 s apart.

    Raises:
        DataError: Naming a line that is no such line, or files that do not exist.
    """
    lists = [folder / name for name in ASSOCIATIONS if (folder / name).is_file()]
    if lists:
        source = lists[0]
        pairs = [_association(source, *line) for line in _lines(source, 4)]
    else:
        rgb, depth = ([*map(_timed, _lines(folder / n, 2))] for n in LISTS)
        source = folder / LISTS[0]
        pairs = [
            (rgb[i][1], depth[j][1])
            for i, j in associated([t for t, _ in rgb], [t for t, _ in depth])
        ]
    if not pairs:
        raise DataError(
            f"{source} has no picture with a depth map within {APART_S} s of it"
        )
    names = [name for pair in pairs for name in pair]
    missing = missing_files(str(folder), names)
    if missing:
        named = ", ".join(names[place] for place in missing[:3])
        raise DataError(
            f"{source} names {len(missing)} files that do not exist, of {len(names)}: "
            f"{named}"
        )
    return pairs


def associated(
    one: list[float], other: list[float], apart: float = APART_S
) -> list[tuple[int, int]]:
    """Places of times that match, in the order of `one`'s times.

    As TUM's `associate.py`: of all pairs less than `apart` seconds apart the closest
    comes first, and takes both out.
    """
    order = sorted(range(len(other)), key=other.__getitem__)
    times = [other[j] for j in order]
    near = []
    for i, time in enumerate(one):
        window = range(
            bisect_left(times, time - apart), bisect_right(times, time + apart)
        )
        near += [
            (abs(time - times[k]), time, times[k], i, order[k])
            for k in window
            if abs(time - times[k]) < apart
        ]
    used_one, used_other = set(), set()
    found = []
    for *_, i, j in sorted(near):
        if i not in used_one and j not in used_other:
            used_one.add(i)
            used_other.add(j)
            found.append((i, j))
    return sorted(found, key=lambda match: one[match[0]])


def _lines(path: Path, words: int) -> list[tuple[str, list[str]]]:
    """Where each line is, and its words; without comments and blank lines."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error})") from None
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        found = line.replace(",", " ").replace("\t", " ").split()
        if not found or found[0].startswith("#"):
            continue
        if len(found) != words:
            raise DataError(
                f"{path} line {number} has {len(found)} words; a line has {words}: "
                "a time in seconds and a file" + (", twice" if words == 4 else "")
            )
        lines.append((f"{path} line {number}", found))
    return lines


def _timed(line: tuple[str, list[str]]) -> tuple[float, str]:
    where, (time, name) = line
    try:
        return float(time), name
    except ValueError:
        raise DataError(f"{where}: {time!r} is no time in seconds") from None


def _association(source: Path, where: str, words: list[str]) -> tuple[str, str]:
    for time in words[::2]:
        _timed((where, [time, ""]))
    one, other = words[1::2]
    depth_first = _DEPTH.search(one) is not None
    if depth_first == (_DEPTH.search(other) is not None):
        raise DataError(
            f"{where}: of {one} and {other} one must lie in a folder whose name begins "
            f"with depth; {source.name} does not tell which is which otherwise"
        )
    return (other, one) if depth_first else (one, other)
