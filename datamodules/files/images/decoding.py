"""Read one picture, whatever its suffix, and say clearly what is wrong with it."""

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datamodules.errors import DataError
from datamodules.files.images.containers import NotWholeError, check_whole
from datamodules.files.images.headers import (
    MAX_PIXELS,
    Exif,
    ImageHeader,
    header_of,
    kind_of,
    named,
)
from datamodules.files.images.kinds import START

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".avif", ".gif"),
    *(".jpe", ".jfif"),
)
"""By which a folder's pictures are found; what they are their content says."""
DARK = 2**14
"""16-bit pictures without a number above this use a quarter of their range or less: as
a rule 14, 12 or 10 bits of a sensor, not shifted up."""
_TURN_BACK = {6: 8, 8: 6}


@dataclass(frozen=True)
class Decoded:
    """A picture."""

    pixels: NDArray[np.uint8]
    """RGB (H, W, 3)."""
    orientation: int
    """That it was stored in, as in EXIF."""
    focal_px: float | None = None
    """Focal length by EXIF; None where the file does not tell."""


def read_image(path: Path, exif: Exif = "apply") -> NDArray[np.uint8]:
    """RGB (H, W, 3) uint8 of a JPEG, PNG, WebP, TIFF, AVIF, BMP or GIF (first frame).

    16-bit pictures are scaled from their whole range, or from the bits that PNG's sBIT
    and TIFF's MaxSampleValue say count. Transparency is dropped.

    Args:
        path: Its content says what it is, its suffix nothing.
        exif: `apply`: upright by its EXIF orientation; `ignore`: as stored.

    Raises:
        DataError: Naming the file, what is wrong with it and what to do.
    """
    return decode_image(path, exif).pixels


def decode_image(path: Path, exif: Exif = "apply") -> Decoded:
    """Like `read_image`, with what the file said of its orientation and camera."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    return decode_bytes(content, path, exif)


def decode_bytes(
    content: bytes, path: Path, exif: Exif = "apply", max_pixels: int = MAX_PIXELS
) -> Decoded:
    """Like `decode_image`, of a file's content.

    Args:
        content: All of it.
        path: What messages call it.
        exif: As for `read_image`.
        max_pixels: Of larger pictures no pixel is decoded.

    Raises:
        TooManyPixelsError: For those.
        DataError: As `read_image`.
    """
    with named(path, len(content)):
        kind = kind_of(path, content[:START])
        check_whole(kind, content)
        header = header_of(kind, io.BytesIO(content), path, max_pixels)
        pixels = _pixels(header, content, path)
    # The decoders of TIFF turn what they read; of no other kind do they here.
    is_upright, orientation = kind == "TIFF", header.orientation
    if is_upright and exif == "ignore":
        pixels = _turned(pixels, _TURN_BACK.get(orientation, orientation))
    elif exif == "apply" and not is_upright:
        pixels = _turned(pixels, orientation)
    return Decoded(pixels, orientation, header.focal_px)


def _pixels(header: ImageHeader, content: bytes, path: Path) -> NDArray[np.uint8]:
    """RGB as the decoder gives it."""
    if header.bits <= 8 and header.kind not in ("JPEG", "PNG"):
        with Image.open(io.BytesIO(content), formats=[header.kind]) as image:
            return np.array(image.convert("RGB"))
    # For these OpenCV takes two thirds of Pillow's time, and Pillow has no 16 bits.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    if header.bits > 8:
        flags |= cv2.IMREAD_ANYDEPTH
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if decoded is None:
        raise NotWholeError("is damaged, or of a variety that cannot be decoded")
    # OpenCV 5 gives other numbers for a 16-bit TIFF if it is asked for RGB itself.
    rgb = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    if rgb.dtype == np.uint8:
        return rgb.astype(np.uint8, copy=False)
    return _to_8_bits(rgb.astype(np.uint16, copy=False), header, path)


def _to_8_bits(
    pixels: NDArray[np.uint16], header: ImageHeader, path: Path
) -> NDArray[np.uint8]:
    top, white, bits = int(pixels.max()), 2**16 - 1, header.significant_bits
    if bits is None and 0 < top < DARK:
        raise DataError(
            f"{path} has 16-bit numbers up to {top} alone, of 65535, and would be "
            f"nearly black: if it is a picture of {top.bit_length()} bits or so, shift "
            "them up, or say how many count in PNG's sBIT or TIFF's MaxSampleValue"
        )
    if bits is not None and top < 2**bits:
        # Where more is used, the file's bits are already shifted up, as PNG wants it.
        white = 2**bits - 1
    if header.zero_is_white:  # Pillow minds it, and OpenCV does not
        pixels = (white - pixels).astype(np.uint16)
    return cv2.convertScaleAbs(pixels, alpha=255 / white).astype(np.uint8, copy=False)


def _turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Stored pixels upright (EXIF 2.3, tag 274)."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
