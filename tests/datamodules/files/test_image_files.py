"""One reader for pictures of every kind, whatever they are called."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from datamodules.errors import DataError
from datamodules.files.images.decoding import read_image
from datamodules.files.images.headers import MAX_PIXELS, read_header

ROWS, COLS = 24, 40  # whole words, so that no byte of a BMP is padding
PIXELS = np.random.default_rng(0).integers(0, 255, (ROWS, COLS, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)
SECOND = {"save_all": True, "append_images": [PICTURE.rotate(180)]}
KINDS = {
    "jpeg": ("JPEG", {}),
    "progressive jpeg": ("JPEG", {"progressive": True}),
    "jpeg with restarts": ("JPEG", {"restart_marker_blocks": 1}),
    "png": ("PNG", {}),
    "palette png": ("PNG", {}),
    "webp": ("WEBP", {}),
    "lossless webp": ("WEBP", {"lossless": True}),
    "tiff": ("TIFF", {}),
    "lzw tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "deflate tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "big tiff": ("TIFF", {"big_tiff": True}),
    "avif": ("AVIF", {}),
    "bmp": ("BMP", {}),
    "gif": ("GIF", {}),
    "animated gif": ("GIF", SECOND),
    "animated webp": ("WEBP", SECOND),
    "two pages of tiff": ("TIFF", SECOND),
    "grey png": ("PNG", {}),
    "png with alpha": ("PNG", {}),
    "cmyk jpeg": ("JPEG", {}),
}
MODES = {
    "palette png": "P",
    "grey png": "L",
    "png with alpha": "RGBA",
    "cmyk jpeg": "CMYK",
}
TURNS = ("jpeg", "png", "webp", "lossless webp", "tiff", "lzw tiff", "avif")
TAILS = (b"", bytes(5000), b"\xff\xd8\xff\xe0" * 30, b"\0\0\0\x18ftypmp42" + bytes(99))
property_test = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def encoded(name: str, **more) -> bytes:
    kind, options = KINDS[name]
    file = io.BytesIO()
    PICTURE.convert(MODES.get(name, "RGB")).save(file, kind, **options, **more)
    return file.getvalue()


FILES = {name: encoded(name) for name in KINDS}


def decoded(content: bytes):
    """As Pillow reads it, whatever the file is called."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def refusal(path) -> str:
    with pytest.raises(DataError) as refused:
        read_image(path)
    message = str(refused.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


@property_test
@given(
    name=st.sampled_from(sorted(KINDS)),
    suffix=st.sampled_from([".jpg", ".PNG", ".tif", ".webp", ""]),
    tail=st.sampled_from(TAILS) | st.binary(max_size=6000),
)
def test_read_image__content_decides_and_trailing_bytes_do_not_matter(
    tmp_path, name, suffix, tail
):
    path = tmp_path / f"picture{suffix}"
    path.write_bytes(FILES[name] + tail)
    # OpenCV's conversion of CMYK rounds otherwise.
    atol = 1 if name == "cmyk jpeg" else 0
    np.testing.assert_allclose(read_image(path), decoded(FILES[name]), atol=atol)


# Of several pages the first is read, and has to be whole.
ONE = sorted(set(KINDS) - {"two pages of tiff"})


@property_test
@given(st.sampled_from(ONE), st.floats(0, 1, exclude_max=True))
def test_read_image__truncated_anywhere_is_named(tmp_path, name, part):
    content = FILES[name]
    (tmp_path / "cut.jpg").write_bytes(content[: int(part * len(content))])
    refusal(tmp_path / "cut.jpg")


@property_test
@given(
    st.sampled_from(["jpeg", "progressive jpeg", "png", "palette png"]),
    st.floats(0, 0.99),
)
def test_read_image__truncated_and_filled_with_zeros_is_named(tmp_path, name, part):
    """As interrupted downloads leave files of the right length."""
    content = FILES[name]
    cut = content[: int(part * len(content))]
    (tmp_path / "cut.jpg").write_bytes(cut.ljust(len(content), b"\0"))
    refusal(tmp_path / "cut.jpg")


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("missing", [1, 2, 9])
def test_read_image__without_its_last_bytes_is_named(tmp_path, name, missing):
    (tmp_path / "cut.png").write_bytes(FILES[name][:-missing])
    refusal(tmp_path / "cut.png")


@property_test
@given(st.integers(60, len(FILES["png"]) - 60), st.integers(1, 255))
def test_read_image__png_with_a_wrong_byte_is_named(tmp_path, place, change):
    content = bytearray(FILES["png"])
    content[place] ^= change
    (tmp_path / "wrong.png").write_bytes(content)
    refusal(tmp_path / "wrong.png")


@pytest.mark.parametrize("name", TURNS)
def test_exif__applied_or_ignored_in_every_kind(tmp_path, name):
    path = tmp_path / "turned"
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path.write_bytes(encoded(name, exif=exif))
        upright = decoded(path.read_bytes())
        header = read_header(path)
        np.testing.assert_array_equal(read_image(path), upright)
        assert header.size("apply") == upright.shape[:2]
        assert header.orientation == orientation
        stored = read_image(path, "ignore")
        assert stored.shape[:2] == header.size("ignore") == (ROWS, COLS)
        if name in ("png", "lossless webp", "tiff", "lzw tiff"):
            np.testing.assert_array_equal(stored, PIXELS)


@pytest.mark.parametrize("name", sorted(set(TURNS) - {"lzw tiff"}))  # Pillow's writer
def test_focal__35_mm_equivalent_is_over_the_diagonal(tmp_path, name):
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif.get_ifd(0x8769)[0xA405] = 28
    (tmp_path / "picture").write_bytes(encoded(name, exif=exif.tobytes()))
    # 36x24 mm film has a diagonal of 43.27 mm.
    expected = 28 * (ROWS**2 + COLS**2) ** 0.5 / 43.27
    assert read_header(tmp_path / "picture").focal_px == pytest.approx(expected, 1e-4)


def test_exif__damaged_says_nothing(tmp_path):
    path = tmp_path / "p.jpg"
    path.write_bytes(encoded("jpeg", exif=b"Exif\0\0II*\0\xff\xff\0\0garbage"))
    assert read_header(path).orientation == 1
    np.testing.assert_array_equal(read_image(path), decoded(FILES["jpeg"]))


WIDE = (np.random.default_rng(1).random((ROWS, COLS, 3)) * 65535).astype(np.uint16)


def with_chunk(png: bytes, name: bytes, content: bytes) -> bytes:
    body = name + content
    chunk = struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))
    return png[:33] + chunk + png[33:]


def with_top_value(tiff: bytes, top: int) -> bytes:
    """A TIFF whose MaxSampleValue says this, its directory moved to the end."""
    start = struct.unpack("<I", tiff[4:8])[0]
    (count,) = struct.unpack("<H", tiff[start : start + 2])
    entries = tiff[start + 2 : start + 2 + 12 * count]
    tags = [entries[i : i + 12] for i in range(0, len(entries), 12)]
    tags.append(struct.pack("<HHIHH", 281, 3, 1, top, 0))
    tags.sort(key=lambda tag: struct.unpack("<H", tag[:2])[0])
    directory = struct.pack("<H", len(tags)) + b"".join(tags) + bytes(4)
    return tiff[:4] + struct.pack("<I", len(tiff)) + tiff[8:] + directory


def sixteen_bits(suffix: str, pixels) -> bytes:
    return cv2.imencode(suffix, pixels[..., ::-1])[1].tobytes()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits__of_the_whole_range(tmp_path, suffix):
    (tmp_path / "p").write_bytes(sixteen_bits(suffix, WIDE))
    # Half a step of rounding.
    np.testing.assert_allclose(read_image(tmp_path / "p"), WIDE / 257, atol=0.501)
    (tmp_path / "p").write_bytes(sixteen_bits(suffix, WIDE * 0))
    assert not read_image(tmp_path / "p").any()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_16_bits__of_which_fewer_are_used(tmp_path, suffix, bits):
    low = WIDE >> (16 - bits)
    content = sixteen_bits(suffix, low)
    path = tmp_path / "p"
    path.write_bytes(content)
    assert "would be nearly black" in refusal(path)
    said = (
        with_chunk(content, b"sBIT", bytes([bits] * 3))
        if suffix == ".png"
        else with_top_value(content, 2**bits - 1)
    )
    path.write_bytes(said)
    expected = low / (2**bits - 1) * 255
    np.testing.assert_allclose(read_image(path), expected, atol=0.501)


@pytest.mark.parametrize("bits", [8, 16])
def test_tiff__whose_zero_is_white(tmp_path, bits):
    grey = WIDE[..., 0] if bits == 16 else (WIDE[..., 0] >> 8).astype(np.uint8)
    content = cv2.imencode(".tif", grey, [cv2.IMWRITE_TIFF_COMPRESSION, 1])[1].tobytes()
    tag = struct.pack("<HHIHH", 262, 3, 1, 1, 0)
    assert content.count(tag) == 1
    (tmp_path / "p").write_bytes(content.replace(tag, tag[:8] + bytes(4)))
    expected = 255 - grey / (257 if bits == 16 else 1)
    np.testing.assert_allclose(
        read_image(tmp_path / "p"), np.stack([expected] * 3, -1), atol=0.501
    )


def test_16_bits__shifted_up_as_png_wants_it(tmp_path):
    high = (WIDE >> 4 << 4) | (WIDE >> 12)
    content = with_chunk(sixteen_bits(".png", high), b"sBIT", bytes([12] * 3))
    (tmp_path / "p").write_bytes(content)
    np.testing.assert_allclose(read_image(tmp_path / "p"), high / 257, atol=0.501)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.float64])
def test_tiff__of_other_numbers_is_refused_in_one_line(tmp_path, capfd, dtype):
    path = tmp_path / "hdr.tif"
    cv2.imwrite(str(path), np.ones((4, 5, 3), dtype))
    assert f"is a TIFF of {np.dtype(dtype).name} numbers" in refusal(path)
    assert capfd.readouterr().err == ""


def png_of_size(rows: int, cols: int) -> bytes:
    """A PNG's head alone: nothing may be decoded to see that it is too large."""
    header = struct.pack(">IIBBBBB", cols, rows, 8, 2, 0, 0, 0)
    png = with_chunk(b"\x89PNG\r\n\x1a\n".ljust(33), b"IHDR", header)
    return png[:8] + png[33:] + with_chunk(bytes(33), b"IEND", b"")[33:]


def test_size__above_pillows_limit_is_read_and_above_ours_refused(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(png_of_size(12240, 16320))
    assert read_header(path).size("apply") == (12240, 16320)
    path.write_bytes(png_of_size(2**14, MAX_PIXELS // 2**14 + 1))
    message = refusal(path)
    assert "16385x16384 px, 268 million; at most 268 million" in message


WHAT = {
    b"": "is empty",
    bytes(700): "holds zeros alone",
    b"\n<!DOCTYPE html><html><body>404": "is an HTML page",
    b"\xef\xbb\xbf<html lang='en'>": "is an HTML page",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:1": "git lfs pull",
    b'{"message": "rate limit"}': "is a JSON document",
    b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>': "XML document",
    b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>': "SVG drawing",
    b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50): "heif-convert",
    b"\0\0\0\x18ftypisom\0\0\2\0isommp41" + bytes(50): "is a video",
    b"\0\0\0\x18ftypcrx \0\0\0\1crx isom": "camera's raw file",
    b"II*\0\x10\0\0\0CR\2\0": "camera's raw file",
    b"\xff\n\xfa\x1f": "djxl",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\0\5\x16\7\0\2\0\0Mac OS X        ": "macOS",
    b"PK\3\4\x14\0": "is an archive",
    b"\x93NUMPY\1\0": "is a NumPy array",
    b"no picture\nat all": "is text, 'no picture at all'",
    b"\x13\x37\xfe\x00": "begins with the bytes 13 37 fe 00",
}


@pytest.mark.parametrize("content", WHAT, ids=WHAT.values())
def test_no_picture__is_called_what_it_is(tmp_path, content):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    assert WHAT[content] in refusal(path)
    with pytest.raises(DataError):
        read_header(path)


def test_raw_file__is_not_read_by_its_preview(tmp_path):
    PICTURE.save(tmp_path / "shot.tif", tiffinfo={254: 1})
    assert "camera's raw file" in refusal(tmp_path / "shot.tif")
