"""Whether a picture's file has its end.

OpenCV returns the readable part of a cut-off JPEG without a word, the missing part
grey; Pillow's decoders say so of what they need, and are asked for the other kinds.
What follows the end marker does not matter: phones append videos, cameras pad.
"""

import re

from datamodules.files.kinds import PictureKind

# In coded data 0xFF is followed by 0, or by a restart marker; anything else ends it.
_JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])", re.DOTALL)
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = (0x01, 0xD8)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNK_BYTES = 12
"""Of a chunk without content: length, name, sum."""
_GIF_IMAGE, _GIF_TRAILER = 0x2C, 0x3B


class NotWholeError(Exception):
    """A file that ends before its end marker, or whose content is damaged, in words."""


def check_whole(kind: PictureKind, content: bytes) -> None:
    """Walk a file to its end marker, where its kind has one.

    Raises:
        NotWholeError: If there is none.
    """
    if kind == "JPEG":
        _check_jpeg(content)
    elif kind == "PNG":
        check_png(content)
    elif kind == "WebP":
        _check_webp(content)
    elif kind == "GIF":
        _check_gif(content)


def _check_jpeg(content: bytes) -> None:
    """Walk a JPEG's segments to its end marker (ITU-T T.81, annex B)."""
    place, scanned = 2, False
    while found := _JPEG_MARKER.search(content, place):
        marker, place = found[1][0], found.end()
        if marker == _END_OF_IMAGE and scanned:
            return
        if marker in (*_WITHOUT_LENGTH, _END_OF_IMAGE):
            continue
        scanned |= marker == _START_OF_SCAN
        place += int.from_bytes(content[place : place + 2])
    raise NotWholeError("is cut off: it has no end marker")


def check_png(content: bytes) -> None:
    """Walk a PNG's chunks to IEND; their sums are the decoder's to compare.

    Raises:
        NotWholeError: If it has none.
    """
    place = len(PNG_SIGNATURE)
    while place + _PNG_CHUNK_BYTES <= len(content):
        place += _PNG_CHUNK_BYTES + int.from_bytes(content[place : place + 4])
        if place > len(content):
            break
        if content[place - 8 : place - 4] == b"IEND":
            return
    raise NotWholeError("is cut off: it has no IEND chunk")


def _check_webp(content: bytes) -> None:
    """Compare a RIFF file's length with what its head says."""
    if len(content) < 8 + int.from_bytes(content[4:8], "little"):
        raise NotWholeError("is cut off: it is shorter than its head says")


def _check_gif(content: bytes) -> None:
    """Walk a GIF's blocks to its trailer (GIF89a, appendix A)."""
    place = 13 + _colours(content[10:11])
    while place < len(content):
        block = content[place]
        if block == _GIF_TRAILER:
            return
        if block == _GIF_IMAGE:
            # Its descriptor, its colours, and the size of its codes.
            place += 10 + _colours(content[place + 9 : place + 10]) + 1
        else:
            place += 2
        while place < len(content) and content[place]:
            place += 1 + content[place]
        place += 1
    raise NotWholeError("is cut off: it has no trailer")


def _colours(flags: bytes) -> int:
    """Bytes of a GIF's table of colours, of which these flags say the size."""
    return 3 * 2 ** (flags[0] % 8 + 1) if flags and flags[0] & 0x80 else 0
