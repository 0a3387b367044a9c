"""What a file is, by what it holds and not by what it is called."""

import re
from typing import Literal, get_args

PictureKind = Literal["JPEG", "PNG", "WebP", "TIFF", "AVIF", "BMP", "GIF"]
"""Pictures that are read."""
START = 512
"""So many bytes tell."""

_MAGIC: tuple[tuple[PictureKind, str], ...] = (
    ("JPEG", r"\xff\xd8\xff"),
    ("PNG", r"\x89PNG\r\n\x1a\n"),
    ("WebP", r"RIFF....WEBP"),
    # BigTIFF has 43 in the place of 42; Canon's raw files are TIFF with a mark.
    ("TIFF", r"(?:II[*+]\0|MM\0[*+])(?!.{4}CR)"),
    ("AVIF", r"....ftyp(?:avi[fs]|.{4}.{4}(?:.{4})*?avi[fs])"),
    ("BMP", r"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0"),
    ("GIF", r"GIF8[79]a"),
)
_CONVERT = "convert it to JPEG or PNG, for instance with"
_AGAIN = "it was downloaded in the place of the picture: download it again"
_VIDEO = "give it a video's suffix, such as .mp4, to have its frames predicted"
_OTHERS: tuple[tuple[str, str, str], ...] = (
    (
        r"....ftyp(?:he|mif1|msf1)",
        "a HEIC photograph",
        f"{_CONVERT} `heif-convert IN OUT.jpg`, or let the phone save JPEG",
    ),
    (
        r"....ftypcrx|(?:II|MM).{6}CR|IIRO|IIRS|IIU\0|FUJIFILMCCD-RAW",
        "a camera's raw file",
        f"{_CONVERT} `darktable-cli IN OUT.png`",
    ),
    (r"....ftyp|\x1aE\xdf\xa3|RIFF....AVI |FLV", "a video", _VIDEO),
    (r"\xff\n|\0\0\0\x0cJXL ", "a JPEG XL picture", f"{_CONVERT} `djxl IN OUT.png`"),
    (
        r"\0\0\0\x0cjP  |\xffO\xffQ",
        "a JPEG 2000 picture",
        f"{_CONVERT} `opj_decompress -i IN -o OUT.png`",
    ),
    (r"8BPS", "a Photoshop document", f"{_CONVERT} `magick IN[0] OUT.png`"),
    (
        r"v/1\x01|#\?RADIANCE|P[Ff]\s",
        "a file of floating-point pixels",
        "tone-map it to an 8-bit PNG; OpenEXR and PFM are read as depth alone",
    ),
    (
        r"P[1-7]\s|DDS |qoif|\0\0\x01\0[^\0]|icns",
        "a picture of a kind that is not read",
        f"{_CONVERT} `magick IN OUT.png`",
    ),
    (r"%PDF", "a PDF document", f"{_CONVERT} `pdftoppm -png IN OUT`"),
    (r"PK\x03\x04|PK\x05\x06|\x1f\x8b|7z\xbc\xaf|Rar!", "an archive", "unpack it"),
    (r"\x93NUMPY", "a NumPy array", "pictures are JPEG, PNG and the like"),
    (r"\x89HDF", "an HDF5 file", "pictures are JPEG, PNG and the like"),
    (
        r"\0\x05\x16[\x00\x07]",
        "a note of macOS about another file",
        "remove it, and give the file of the same name without `._`",
    ),
    (
        r"version https://git-lfs",
        "a Git-LFS pointer",
        "fetch what it stands for: git lfs pull",
    ),
    (r"\s*(?:<!doctype html|<html|<head|<body)", "an HTML page", _AGAIN),
    (
        r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*|<!doctype svg[^>]*>\s*)*<svg",
        "an SVG drawing",
        f"{_CONVERT} `magick IN OUT.png`",
    ),
    (r"\s*<[?!\w]", "an XML document", _AGAIN),
    (r"\s*(?:\{\s*[\"}]|\[\s*[\"{\[\]\d])", "a JSON document", _AGAIN),
)


def _compiled(pattern: str, *flags: re.RegexFlag) -> re.Pattern[bytes]:
    return re.compile(pattern.encode("ascii"), sum(flags, re.DOTALL))


_PICTURES = tuple((kind, _compiled(pattern)) for kind, pattern in _MAGIC)
_KNOWN = tuple(
    (_compiled(pattern, re.IGNORECASE), name, advice)
    for pattern, name, advice in _OTHERS
)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def picture_kind(start: bytes) -> PictureKind | None:
    """Which kind of picture a file's first bytes begin; None for any that is not read.

    Args:
        start: At least `START` bytes where the file has them.
    """
    for kind, pattern in _PICTURES:
        if pattern.match(_brands(start) if kind == "AVIF" else start):
            return kind
    return None


def what_it_is(start: bytes) -> str:
    """In words, what is in a file that holds no picture, and what to do with it."""
    if not start:
        return "is empty (0 bytes); copy it again"
    if not start.strip(b"\0"):
        return "holds zeros alone; copy it again"
    for pattern, name, advice in _KNOWN:
        if pattern.match(start.removeprefix(BYTE_ORDER_MARK)):
            return f"is {name}, which is not read as a picture; {advice}"
    kinds = ", ".join(get_args(PictureKind))
    text = " ".join(start[:40].decode("latin-1").split())
    what = (
        f"is text, {text!r}, and no picture"
        if text.isascii() and text.isprintable()
        else f"begins with the bytes {start[:8].hex(' ')}, as no picture does"
    )
    return f"{what}; give {kinds}"


def _brands(start: bytes) -> bytes:
    """The first box alone, whose brands say whether an ISO file is an AVIF."""
    return start[: int.from_bytes(start[:4])] if start[4:8] == b"ftyp" else b""
