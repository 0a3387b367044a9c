"""What a picture's file says before its pixels are decoded."""

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import hypot
from pathlib import Path
from typing import BinaryIO, Literal

import cv2
from PIL import Image, UnidentifiedImageError

from datamodules.errors import DataError
from datamodules.files.images.containers import NotWholeError
from datamodules.files.images.kinds import START, PictureKind, picture_kind, what_it_is
from datamodules.files.images.png_tiff import TiffHeader, png_header, tiff_header

Exif = Literal["apply", "ignore"]
"""Whether a picture is turned upright by its EXIF orientation, or taken as stored."""
MAX_PIXELS = 2**28
"""268 million: more than any camera's, and what some gigabytes of memory can hold."""
FILM_DIAGONAL_MM = hypot(36, 24)
_ORIENTATION, _FOCAL_35MM, _EXIF_IFD = 0x0112, 0xA405, 0x8769

# Pillow's own limit is a warning at 89 million pixels and an error at 179.
Image.MAX_IMAGE_PIXELS = None


class TooManyPixelsError(DataError):
    """A picture larger than is read, found before its pixels are decoded."""


@dataclass(frozen=True)
class ImageHeader:
    """What a picture's file says before its pixels are decoded."""

    kind: PictureKind
    stored_size: tuple[int, int]
    """(rows, cols) before any turning."""
    bits: int
    significant_bits: int | None
    """Of 16-bit pictures, where the file says how many of the bits count."""
    orientation: int
    """As in EXIF: 1 is upright."""
    zero_is_white: bool
    """Whether a larger number is a darker grey, as in some TIFFs."""
    focal_35mm: float | None
    """Focal length in mm that shows as much of the scene on 36x24 mm film."""

    def size(self, exif: Exif) -> tuple[int, int]:
        """(rows, cols) of what `read_image` returns."""
        rows, cols = self.stored_size
        swap = exif == "apply" and self.orientation >= 5
        return (cols, rows) if swap else (rows, cols)

    @property
    def focal_px(self) -> float | None:
        """Focal length in pixels; None where the file does not tell.

        EXIF 2.3's FocalLengthIn35mmFilm is equivalent over the diagonal (CIPA DCG-001),
        which matters wherever a picture is not 3:2.
        """
        if not self.focal_35mm:
            return None
        return self.focal_35mm / FILM_DIAGONAL_MM * hypot(*self.stored_size)


def read_header(path: Path) -> ImageHeader:
    """What a picture's file says, without decoding it.

    Raises:
        DataError: As `read_image`, except for what only decoding finds.
    """
    try:
        with path.open("rb") as file:
            start = file.read(START)
            file.seek(0, io.SEEK_END)
            with named(path, file.tell()):
                return header_of(kind_of(path, start), file, path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from None


def kind_of(path: Path, start: bytes) -> PictureKind:
    """Which kind of picture a file's first bytes begin.

    Raises:
        DataError: Saying what it is instead.
    """
    kind = picture_kind(start)
    if kind is None:
        raise DataError(f"{path} {what_it_is(start)}")
    return kind


def header_of(
    kind: PictureKind, file: BinaryIO, path: Path, max_pixels: int = MAX_PIXELS
) -> ImageHeader:
    """The header of an open file of a kind; to be called within `named`.

    Raises:
        TooManyPixelsError: For more than `max_pixels`.
        DataError: For what is never read: raw files, other numbers.
    """
    bits, significant, zero_is_white = 8, None, False
    if kind == "PNG":
        # Pillow decodes all of a PNG to look for EXIF behind its pixels.
        png = png_header(file)
        size, bits, significant = png.size, png.bits, png.significant_bits
        orientation, focal_mm = _exif_of(png.exif)
    elif kind == "TIFF":
        tiff = tiff_header(file)
        _check_tiff(tiff, path)
        size, bits, significant = tiff.size, tiff.bits, tiff.significant_bits
        orientation, focal_mm = tiff.orientation, tiff.focal_35mm
        zero_is_white = tiff.zero_is_white
    else:
        file.seek(0)
        with Image.open(file, formats=[kind]) as image:
            size = (image.height, image.width)
            orientation, focal_mm = _exif_of(image)
    pixels = size[0] * size[1]
    if not 0 < pixels <= max_pixels:
        raise TooManyPixelsError(
            f"{path} has {size[1]}x{size[0]} px, {pixels / 1e6:.0f} million; at most "
            f"{max_pixels / 1e6:.0f} million are read: shrink it, or cut it into parts"
        )
    if orientation not in range(1, 9):
        orientation = 1
    return ImageHeader(
        kind, size, bits, significant, orientation, zero_is_white, focal_mm
    )


def _check_tiff(tiff: TiffHeader, path: Path) -> None:
    if tiff.raw:
        raise DataError(
            f"{path} is a camera's raw file, which is not read as a picture; "
            "convert it to JPEG or PNG, for instance with `darktable-cli IN OUT.png`"
        )
    if not tiff.unsigned or tiff.bits > 16:
        raise DataError(
            f"{path} is a TIFF of {tiff.number} numbers, and nothing says which are "
            "black and white; pictures have 8 or 16 bits: scale it, and save it as PNG"
        )


def _exif_of(source: Image.Image | bytes) -> tuple[int, float | None]:
    """Orientation and 35 mm equivalent focal length; damaged EXIF says nothing."""
    try:
        if isinstance(source, bytes):
            exif = Image.Exif()
            exif.load(source)
        else:
            exif = source.getexif()
        focal_mm = exif.get_ifd(_EXIF_IFD).get(_FOCAL_35MM)
        orientation = int(exif.get(_ORIENTATION, 1))
        return orientation, float(focal_mm) if focal_mm else None
    except Exception:
        # Cameras write, and tools break, what no class of errors covers.
        return 1, None


@contextmanager
def named(path: Path, length: int) -> Iterator[None]:
    """Whatever walks and decoders raise, as one line; their warnings as none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except NotWholeError as problem:
        raise DataError(f"{path} {problem} ({length} bytes); copy it again") from None
    except (
        *(OSError, SyntaxError, ValueError, RuntimeError, EOFError, struct.error),
        *(TypeError, KeyError, IndexError, cv2.error),
    ) as problem:
        unknown = isinstance(problem, UnidentifiedImageError)
        why = "no header" if unknown else " ".join(str(problem).split())
        raise DataError(
            f"{path} cannot be decoded ({why}, {length} bytes); it is cut off, damaged "
            "or of a rare variety: copy it again, or convert it to JPEG or PNG"
        ) from None
