"""Depth as other programs write it: PFM, NumPy, TIFF and OpenEXR."""

import io
import zipfile
from contextlib import suppress

import cv2
import numpy as np
import OpenEXR
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datamodules.errors import DataError
from datamodules.files.depths.arrays import array_of
from datamodules.files.depths.pfm import pfm_of
from datamodules.files.depths.reading import metres, read_depth

DEPTH = np.array([[0, 1.5, 2.25], [3.0, 4.0, 10.0]], np.float32)
SPACES = [b" ", b"\n", b"\r\n", b"\t", b"\n# by hand\n", b" \n"]


@st.composite
def pfms(draw):
    """A grey PFM of any numbers, with a header as any program writes it."""
    rows, cols = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    order = draw(st.sampled_from("<>"))
    size = 4 * rows * cols
    raster = draw(st.binary(min_size=size, max_size=size))
    sign = "-" if order == "<" else ""
    words = [b"Pf", b"%d" % cols, b"%d" % rows]
    words.append((sign + draw(st.sampled_from(["1", "1.0", "1.000000"]))).encode())
    gaps = [draw(st.sampled_from(SPACES)) for _ in range(3)]
    gaps.append(draw(st.sampled_from([b" ", b"\n", b"\r\n", b" # end\n"])))
    header = b"".join(w + g for w, g in zip(words, gaps, strict=True))
    numbers = np.frombuffer(raster, f"{order}f4").reshape(rows, cols)[::-1]
    return header + raster, numbers


@given(pfms())
def test_pfm__numbers_as_stored_whatever_the_header_looks_like(case):
    content, numbers = case
    found = pfm_of(content, "x.pfm")
    np.testing.assert_array_equal(found, numbers)


def test_pfm__is_read_as_opencv_writes_it(tmp_path):
    path = tmp_path / "depth.pfm"
    cv2.imwrite(str(path), DEPTH)
    np.testing.assert_array_equal(read_depth(path, 1), DEPTH)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Pf\n1 1\n-0.001\n\0\0\0\0", "PFM scale -0.001"),
        (b"Pf\n1 1\n0\n\0\0\0\0", "PFM scale 0"),
        (b"Pf\n1 1\nnan\n\0\0\0\0", "PFM scale nan"),
        (b"PF\n1 1\n-1\n" + bytes(12), "colour PFM"),
        (b"P5\n1 1\n255\n\0", "no PFM"),
        (b"Pf\n1 1\n", "PFM header '1 1'"),
        (b"Pf\nwide 1\n-1\n\0\0\0\0", "PFM header 'wide 1 -1'"),
        (b"Pf\n0 1\n-1\n", "PFM header '0 1 -1'"),
        (b"Pf\n9999999 9999999\n-1\n\0\0\0\0", "cut off"),
        (b"Pf\n1 1\n-1\n\0\0\0", r"cut off \(3 bytes of the 4"),
        (b"Pf\n1 1\n-1\n" + bytes(12), "8 bytes behind"),
    ],
)
def test_pfm__wrong_ones_are_named(content, message):
    with pytest.raises(DataError, match=message):
        pfm_of(content, "x.pfm")


def saved(array, save=np.save, **options) -> bytes:
    file = io.BytesIO()
    save(file, array, **options)
    return file.getvalue()


NUMBERS = [
    *(
        f"{order}{kind}"
        for order in "<>"
        for kind in ["i2", "i4", "i8", "u2", "u4", "u8", "f2", "f4", "f8"]
    ),
    *("i1", "u1"),
]


@given(
    st.sampled_from(NUMBERS),
    st.integers(0, 2),
    st.integers(0, 2),
    st.booleans(),
    st.sampled_from(["npy", "npz", "compressed"]),
)
def test_array__any_number_type_shape_and_container(kind, before, behind, flip, form):
    depth = np.array([[1, 0, 3], [4, 5, 6]], kind)
    shaped = depth.reshape((1,) * before + depth.shape + (1,) * behind)
    shaped = np.asfortranarray(shaped) if flip else shaped
    save = {"npy": np.save, "npz": np.savez, "compressed": np.savez_compressed}[form]
    stored = array_of(saved(shaped, save), "x")
    np.testing.assert_array_equal(metres(stored, "x", 2), depth.astype("f4") / 2)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((2, 2), bool), "stores dtype bool"),
        (np.ones((2, 2), complex), "stores dtype complex128"),
        (np.ones((2, 2)).astype(str), "stores dtype str"),
        (np.ones((2, 2), "M8[s]"), "stores dtype datetime64"),
        (np.ones((2, 2), [("z", "f4"), ("c", "u1")]), "stores records of z, c"),
        (np.array([[None, 1.0]]), "stores Python objects"),
    ],
)
@pytest.mark.parametrize("save", [np.save, np.savez])
def test_array__what_holds_no_numbers_is_named(array, message, save):
    with pytest.raises(DataError, match=f"{message}.*whole or real numbers"):
        array_of(saved(array, save), "x.npy")


class Trap:
    def __reduce__(self):
        return print, ("unpickled",)


def test_array__nothing_is_unpickled(capsys):
    content = saved(np.array([[Trap()]]), allow_pickle=True)
    with pytest.raises(DataError, match="Python objects"):
        array_of(content, "x.npy")
    assert not capsys.readouterr().out


def test_npz__of_several_arrays_depth_is_taken():
    content = saved(np.zeros((1, 1)), np.savez, depth=DEPTH, mask=DEPTH > 0)
    np.testing.assert_array_equal(array_of(content, "x.npz"), DEPTH)
    with pytest.raises(DataError, match=r"arrays arr_0, z; .*call the depth 'depth'"):
        array_of(saved(DEPTH, np.savez, z=DEPTH), "x.npz")


def test_array__damaged_ones_are_named():
    for content in (saved(DEPTH), saved(DEPTH, np.savez_compressed)):
        # Some damage leaves a readable file; none may end in anything but DataError.
        for place in range(0, len(content), 7):
            for damaged in (
                content[:place],
                content[:place] + b"\xff\x00" + content[place + 2 :],
            ):
                with suppress(DataError):
                    array_of(damaged, "x.npy")
    header = saved(np.zeros((2, 3), "f4")).replace(b"(2, 3)", b"(9**9, 9**9)")
    with pytest.raises(DataError, match="cannot be read"):
        array_of(header, "x.npy")
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    with pytest.raises(DataError, match="the arrays none"):
        array_of(empty.getvalue(), "x.npz")


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.uint16, np.int32])
@pytest.mark.parametrize("suffix", [".tif", ".tiff"])
def test_tiff__depth_of_16_bits_and_more(tmp_path, kind, suffix):
    path, depth = tmp_path / f"depth{suffix}", (DEPTH * 100).astype(kind)
    cv2.imwrite(str(path), depth)
    np.testing.assert_array_equal(read_depth(path, 100), DEPTH)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_tiff__as_pillow_writes_it(tmp_path, compression):
    path = tmp_path / "depth.tif"
    Image.fromarray(DEPTH).save(path, compression=compression)
    np.testing.assert_array_equal(read_depth(path, 1), DEPTH)


def test_tiff__8_bits_and_colour_are_refused(tmp_path):
    path = tmp_path / "depth.tif"
    cv2.imwrite(str(path), np.ones((4, 4), np.uint8))
    with pytest.raises(DataError, match="depth TIFF has one 16-bit number"):
        read_depth(path, 1)
    cv2.imwrite(str(path), np.ones((4, 4, 3), np.float32))
    with pytest.raises(DataError, match="one number a pixel"):
        read_depth(path, 1)


def write_exr(path, **channels):
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with OpenEXR.File(header, channels) as file:
        file.write(str(path))


OTHER = np.full_like(DEPTH, 7)


@pytest.mark.parametrize(
    "channels",
    [
        {"Depth.V": DEPTH},
        {"ViewLayer.Depth.Z": DEPTH, "ViewLayer.Combined.R": OTHER},
        {"View Layer.Depth.V": DEPTH, "View Layer.Normal.Z": OTHER},
        {"V": DEPTH},
        {"Z": DEPTH, "R": OTHER, "G": OTHER, "B": OTHER},
        {"depth": DEPTH, "Y": OTHER},
        {"R": DEPTH, "G": DEPTH, "B": DEPTH, "A": OTHER},
    ],
    ids=", ".join,
)
def test_exr__depth_under_the_names_of_renderers(tmp_path, channels):
    path = tmp_path / "depth.exr"
    write_exr(path, **channels)
    np.testing.assert_array_equal(read_depth(path, 1), DEPTH)


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_exr__background_of_blender_is_unknown(tmp_path, kind):
    path, depth = tmp_path / "depth.exr", DEPTH.copy()
    with np.errstate(over="ignore"):
        depth[0] = [0, 1e10, 2.25]
        depth = depth.astype(kind)
    write_exr(path, **{"ViewLayer.Depth.Z": depth})
    np.testing.assert_array_equal(read_depth(path, 1)[0], [0, 0, 2.25])


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ({"Normal.X": DEPTH, "Normal.Z": DEPTH}, "channels Normal.X, Normal.Z; depth"),
        ({"A.Depth.Z": DEPTH, "B.Depth.Z": DEPTH}, "A.Depth.Z, B.Depth.Z; which one"),
        ({"R": DEPTH, "G": OTHER, "B": DEPTH}, "a picture in colour"),
    ],
)
def test_exr__channels_that_are_no_depth_are_named(tmp_path, channels, message):
    path = tmp_path / "depth.exr"
    write_exr(path, **channels)
    with pytest.raises(DataError, match=message):
        read_depth(path, 1)


@pytest.mark.parametrize("kind", ["u2", "f4", "f8", "f2"])
def test_unknown_values__are_compared_as_they_are_stored(kind):
    value = 1001.1 if kind[0] == "f" else 65535
    stored = np.array([[value, 2000, 3000]]).astype(kind)
    found = metres(stored, "x", 1000, unknown_values=(value, 3000, float("nan")))
    np.testing.assert_array_equal(found, [[0, 2, 0]])


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (1500, r"millimetres: 1.5 m \(depth_scale 1000\)"),
        (60000, r"TUM's 1/5000 m: 12 m"),
        (0.01, "normalised, inverse or relative"),
        (1e9, "no depth in a common unit"),
    ],
)
def test_read_depth__implausible_median_suggests_a_unit(stored, words):
    with pytest.raises(DataError, match=f"may be .*{words}"):
        metres(np.full((2, 2), stored), "x", 1)


@pytest.mark.parametrize("shape", [(0, 0), (3,), (2, 3, 4), ()])
def test_metres__shapes_that_are_no_map_are_named(shape):
    with pytest.raises(DataError, match="one number a pixel"):
        metres(np.ones(shape), "x", 1, may_be_empty=True)
