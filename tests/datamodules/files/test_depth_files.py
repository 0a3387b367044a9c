import math

import cv2
import numpy as np
import OpenEXR
import pytest

from datamodules.batch import DataError
from datamodules.files.depths.reading import read_depth
from datamodules.files.depths.writing import colour, png_scale, write_png16
from datamodules.files.images.decoding import read_image

DEPTH = np.array([[0, 1.5, 2.25], [3.0, 4.0, 10.0]], np.float32)


def write_exr(path, depth):
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with OpenEXR.File(header, {"Z": depth}) as file:
        file.write(str(path))


def write_pfm(path, depth):
    """Portable float map by its definition: rows from the bottom, little endian."""
    rows, cols = depth.shape
    header = f"Pf\n{cols} {rows}\n-1.0\n".encode()
    path.write_bytes(header + depth[::-1].astype("<f4").tobytes())


WRITERS = {
    ".png": lambda path, depth: cv2.imwrite(str(path), depth.astype(np.uint16)),
    ".npy": np.save,
    ".pfm": write_pfm,
    ".exr": write_exr,
}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("scale", [1000, 256])
def test_read_depth__every_format_gives_the_metres(tmp_path, suffix, scale):
    path = tmp_path / f"depth{suffix}"
    WRITERS[suffix](path, DEPTH * scale)
    np.testing.assert_allclose(read_depth(path, scale), DEPTH, atol=0.5 / scale)


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        ([[1, np.nan]], "1 NaN, infinite or negative values of 2"),
        ([[1, np.inf]], "NaN, infinite or negative"),
        ([[1, -2]], "NaN, infinite or negative"),
        ([[0, 0]], "no pixel with known depth"),
        ([[3000, 2500]], "median depth of 2750 m with depth_scale 1"),
        ([[[1, 2, 3]] * 2] * 2, "one number a pixel"),
    ],
)
def test_read_depth__wrong_values_are_named(tmp_path, depth, message):
    path = tmp_path / "depth.npy"
    np.save(path, np.array(depth, np.float32))
    with pytest.raises(DataError, match=message) as error:
        read_depth(path, 1)
    assert str(path) in str(error.value)


def test_read_depth__ignore_treats_wrong_values_as_unknown(tmp_path):
    path = tmp_path / "depth.npy"
    np.save(path, np.array([[1, np.nan, -3]], np.float32))
    np.testing.assert_array_equal(read_depth(path, 1, "ignore"), [[1, 0, 0]])


def test_read_depth__8_bit_png_is_refused(tmp_path):
    path = tmp_path / "depth.png"
    cv2.imwrite(str(path), np.ones((4, 4), np.uint8))
    with pytest.raises(DataError, match="16-bit"):
        read_depth(path, 1)


@pytest.mark.parametrize("suffix", WRITERS)
def test_read_depth__truncated_file_is_named(tmp_path, suffix):
    path = tmp_path / f"depth{suffix}"
    rng = np.random.default_rng(0)
    WRITERS[suffix](path, rng.uniform(1, 9, (64, 64)).astype(np.float32) * 1000)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError, match=r"depth\.\w+"):
        read_depth(path, 1000)


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_read_image__unreadable_is_named(tmp_path, content):
    path = tmp_path / "image.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"image\.png"):
        read_image(path)


def test_read_image__channels_are_rgb(tmp_path):
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), np.full((2, 2, 3), (0, 0, 255), np.uint8))
    np.testing.assert_array_equal(read_image(path)[0, 0], [255, 0, 0])


def test_write_png16__rounds_and_reads_back(tmp_path):
    path = tmp_path / "depth.png"
    write_png16(path, np.array([[1.2346, 1.2344, 80.0]], np.float32), 1000)
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(stored, [[1235, 1234, 65535]])
    assert [p.name for p in tmp_path.iterdir()] == ["depth.png"]


def test_write_png16__missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="cannot be written"):
        write_png16(tmp_path / "nowhere" / "d.png", DEPTH, 1000)


@pytest.mark.parametrize(("max_depth", "scale"), [(10, 1000), (65, 1000), (80, 256)])
def test_png_scale__max_depth_fits(max_depth, scale):
    assert png_scale(max_depth) == scale


def test_colour__unknown_is_black_and_range_is_fixed():
    picture = colour(DEPTH, 10.0)
    assert picture[0, 0].tolist() == [0, 0, 0]
    alone = colour(DEPTH[1:, :1], 10.0)
    np.testing.assert_array_equal(alone[0, 0], picture[1, 0])


@pytest.mark.parametrize(("max_depth", "nearest"), [(5.0, 0.1), (80.0, 0.25)])
def test_colour__tells_a_hand_from_a_wall_at_any_range(max_depth, nearest):
    grey = colour(
        np.array([[nearest / 2, nearest, 2 * nearest, max_depth]], np.float32),
        max_depth,
        "gray",
    )[0, :, 0].tolist()
    expected = 255 * (1 - math.log(2) / math.log(max_depth / nearest))
    assert grey == [255, 255, int(expected), 0]
