"""Portable float maps: `Pf`, width, height, scale, then rows from the bottom."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import DataError

# Words apart by any whitespace, in one line or several; a comment runs to a line's end.
_WORD = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*([^\s#]+)")
_REST_OF_LINE = re.compile(rb"[ \t]*(?:#[^\r\n]*)?(?:\r\n|\n)")
_NUMBER_BYTES = 4


def pfm_of(content: bytes, path: str) -> NDArray[np.floating[Any]]:
    """The numbers (H, W) of a grey PFM, as they are stored.

    The scale's sign says the order of bytes (negative: little endian). Its magnitude
    is 1: readers disagree on whether another one multiplies, divides or means nothing.

    Args:
        content: The whole file.
        path: For messages.

    Raises:
        DataError: If it is no such file, cut off, in colour, or of another scale.
    """
    words: list[bytes] = []
    place = 0
    while len(words) < 4 and (found := _WORD.match(content, place)):
        words.append(found[1])
        place = found.end()
    if words[:1] == [b"PF"]:
        raise DataError(
            f"{path} is a colour PFM (PF) with three numbers a pixel; a depth map is a "
            "grey one (Pf)"
        )
    if words[:1] != [b"Pf"]:
        raise DataError(f"{path} is no PFM: it does not begin with Pf; replace it")
    try:
        cols, rows = (int(word) for word in words[1:3])
        scale = float(words[3])
    except (ValueError, IndexError):
        cols = rows = 0
        scale = 0.0
    if cols < 1 or rows < 1:
        read = b" ".join(words[1:])[:40].decode("ascii", "backslashreplace")
        raise DataError(
            f"{path} has the PFM header {read!r}; it must be width, height and scale, "
            "two whole numbers and 1 or -1"
        )
    if abs(scale) != 1:
        raise DataError(
            f"{path} has the PFM scale {scale:g}, which programs read in several ways; "
            "store the depth itself with scale -1 (little endian) or 1 (big endian)"
        )
    size = rows * cols * _NUMBER_BYTES
    start = _raster(content, place, size)
    if len(content) - start < size:
        raise DataError(
            f"{path} is cut off ({max(len(content) - start, 0)} bytes of the {size} "
            f"of {cols}x{rows} numbers); copy it again"
        )
    if content[start + size :].strip():
        raise DataError(
            f"{path} holds {len(content) - start - size} bytes behind its {cols}x"
            f"{rows} numbers, so that its header cannot be right; write it again"
        )
    kind = np.dtype("<f4" if scale < 0 else ">f4")
    numbers = np.frombuffer(content, kind, rows * cols, start)
    return numbers.reshape(rows, cols)[::-1]


def _raster(content: bytes, place: int, size: int) -> int:
    """Where the numbers begin, which may look like the end of a header.

    One byte of whitespace parts them from the header; CRLF, or a comment, is more. What
    leaves the right number of bytes is meant.
    """
    starts = [place + 1]
    if line := _REST_OF_LINE.match(content, place):
        starts.insert(0, line.end())
    for start in starts:
        if len(content) - start == size:
            return start
    return starts[0]
