"""What PNG and TIFF files say of their pixels, which Pillow does not tell."""

import io
import struct
from dataclasses import dataclass
from typing import BinaryIO

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from datamodules.files.images.containers import PNG_SIGNATURE, NotWholeError

_BIG_TIFF = b"+"
_UNSIGNED, _FLOAT = 1, 3
_REDUCED = 1
"""NewSubfileType of a preview: raw files have one in their first directory."""
_ZERO_IS_WHITE = 0
_SENSOR = (32803, 34892)
"""PhotometricInterpretation of a colour filter array, and of linear raw."""
# Numbers of tags (TIFF 6.0, DNG 1.6, EXIF 2.3).
_SUBFILE, _COLS, _ROWS, _BITS, _PHOTOMETRIC = 254, 256, 257, 258, 262
_ORIENTATION, _TOP, _SAMPLE_FORMAT, _DNG = 274, 281, 339, 50706
_EXIF_IFD, _FOCAL_35MM = 34665, 41989
_PARTS = ((273, 279), (324, 325))
"""Places and lengths of strips and of tiles."""


@dataclass(frozen=True)
class PngHeader:
    """What a PNG says before its pixels, and its EXIF wherever that stands."""

    size: tuple[int, int]
    """(rows, cols) as stored."""
    bits: int
    significant_bits: int | None
    exif: bytes


def png_header(file: BinaryIO) -> PngHeader:
    """Read a PNG's header, going over its pixels.

    Raises:
        NotWholeError: If there is none.
    """
    file.seek(len(PNG_SIGNATURE))
    size, bits, significant, exif = None, 8, None, b""
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name == b"IHDR":
            cols, rows, bits = struct.unpack(">IIB", file.read(9).ljust(9, b"\0"))
            size, length = (rows, cols), length - 9
        elif name == b"sBIT":
            stored = file.read(length)
            significant, length = max(stored, default=None), length - len(stored)
        elif name == b"eXIf":
            exif = file.read(length)
            length -= len(exif)
        elif name == b"IEND" or size is None:
            break
        file.seek(length + 4, io.SEEK_CUR)
    if size is None:
        raise NotWholeError("is cut off: it has no IHDR chunk")
    return PngHeader(size, bits, significant, exif)


@dataclass(frozen=True)
class TiffHeader:
    """What a TIFF says of its first page."""

    size: tuple[int, int]
    """(rows, cols) as stored."""
    bits: int
    significant_bits: int | None
    unsigned: bool
    number: str
    """The type of the numbers, in words."""
    raw: bool
    """Whether the page is a raw file's: its sensor's pixels, or a small preview."""
    zero_is_white: bool
    """Whether a larger number is a darker grey."""
    orientation: int
    focal_35mm: float | None


def tiff_header(file: BinaryIO) -> TiffHeader:
    """Read a TIFF's first directory, and see whether what it names is there.

    Raises:
        NotWholeError: If a part lies beyond the file's end.
    """
    length = file.seek(0, io.SEEK_END)
    file.seek(0)
    start = file.read(8)
    if start[2:3] == _BIG_TIFF or start[3:4] == _BIG_TIFF:
        start += file.read(8)
    try:
        directory = ImageFileDirectory_v2(start)
        if not 0 < directory.next < length:
            raise NotWholeError("is cut off: its directory lies beyond its end")
        file.seek(directory.next)
        directory.load(file)
        tags = dict(directory)
        rows, cols = int(tags[_ROWS]), int(tags[_COLS])
        focal_35mm = _focal_of(start, file, tags.get(_EXIF_IFD))
    except (KeyError, SyntaxError, OSError, struct.error, ValueError, TypeError):
        raise NotWholeError("is cut off or damaged: no directory in it") from None
    for place_tag, count_tag in _PARTS:
        places, counts = (_many(tags.get(tag)) for tag in (place_tag, count_tag))
        if any(p + n > length for p, n in zip(places, counts, strict=False)):
            raise NotWholeError("is cut off: a part of its pixels lies beyond its end")
    bits = max(_many(tags.get(_BITS)), default=1)
    kind = max(_many(tags.get(_SAMPLE_FORMAT)), default=_UNSIGNED)
    top = max(_many(tags.get(_TOP)), default=0)
    return TiffHeader(
        size=(rows, cols),
        bits=bits,
        significant_bits=top.bit_length() if top else bits if 8 < bits < 16 else None,
        unsigned=kind == _UNSIGNED,
        number=f"{'float' if kind == _FLOAT else 'int'}{bits}",
        raw=_DNG in tags
        or tags.get(_PHOTOMETRIC) in _SENSOR
        or bool(int(tags.get(_SUBFILE, 0)) & _REDUCED),
        zero_is_white=tags.get(_PHOTOMETRIC) == _ZERO_IS_WHITE,
        orientation=int(tags.get(_ORIENTATION, 1)),
        focal_35mm=focal_35mm,
    )


def _focal_of(start: bytes, file: BinaryIO, place: object) -> float | None:
    """35 mm equivalent focal length of a TIFF's EXIF directory, where it has one."""
    if not isinstance(place, int):
        return None
    file.seek(place)
    exif = ImageFileDirectory_v2(start)
    exif.load(file)
    focal_mm = exif.get(_FOCAL_35MM)
    return float(focal_mm) if focal_mm else None


def _many(value: object) -> tuple[int, ...]:
    """A tag's numbers, of which Pillow unpacks single ones."""
    if value is None:
        return ()
    return tuple(int(v) for v in (value if isinstance(value, tuple) else (value,)))
