"""Depth maps of another size than their pictures."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.errors import DataError
from datamodules.files.pairs import Pair, PairFrames, resized_depth
from datamodules.sizes import same_shape


def frames(folder, image, depth, **options) -> PairFrames:
    cv2.imwrite(str(folder / "i.png"), np.zeros((*image, 3), np.uint8))
    np.save(folder / "d.npy", depth)
    k = np.array([[500, 0, 30], [0, 500, 20], [0, 0, 1]], np.float32)
    return PairFrames([Pair(folder / "i.png", folder / "d.npy", 1, k)], **options)


def numbered(size) -> np.ndarray:
    return 1 + np.arange(np.prod(size), dtype=np.float32).reshape(size) / 100


@pytest.mark.parametrize("times", [2, 3, 5])
def test_nearest__small_depth_is_repeated(tmp_path, times):
    depth = numbered((6, 8))
    image = (6 * times, 8 * times)
    frame = frames(tmp_path, image, depth, depth_resize="nearest")[0]
    np.testing.assert_array_equal(frame.depth, np.kron(depth, np.ones((times, times))))
    assert frame.intrinsics[0, 0] == 500  # in pixels of the picture, which stays


def test_nearest__large_depth_is_sampled_at_the_centres(tmp_path):
    depth = numbered((18, 24))
    frame = frames(tmp_path, (6, 8), depth, depth_resize="nearest")[0]
    np.testing.assert_array_equal(frame.depth, depth[1::3, 1::3])


@given(st.integers(2, 40), st.integers(2, 40), st.integers(2, 40), st.integers(2, 40))
def test_resized__no_value_is_invented(rows, cols, to_rows, to_cols):
    depth = numbered((rows, cols))
    resized = resized_depth(depth, (to_rows, to_cols))
    assert resized.shape == (to_rows, to_cols)
    assert np.isin(resized, depth).all()


@pytest.mark.parametrize("options", [{}, {"depth_resize": "error"}])
def test_error__names_the_option(tmp_path, options):
    with pytest.raises(DataError, match=r"80x60 px .* is 8x6; set depth_resize: near"):
        frames(tmp_path, (60, 80), numbered((6, 8)), **options)[0]


@pytest.mark.parametrize("image", [(80, 60), (60, 60), (45, 80), (50, 80)])
def test_nearest__another_shape_is_refused(tmp_path, image):
    with pytest.raises(DataError, match="is 8x6; register the two"):
        frames(tmp_path, image, numbered((6, 8)), depth_resize="nearest")[0]


@given(
    st.integers(100, 4000),
    st.integers(100, 4000),
    st.floats(0.05, 1),
    st.sampled_from([round, np.floor, np.ceil]),
)
def test_same_shape__holds_for_rounded_scales(rows, cols, scale, rounded):
    small = (int(rounded(rows * scale)), int(rounded(cols * scale)))
    assert same_shape(small, (rows, cols))
    assert same_shape((rows, cols), small)


@pytest.mark.parametrize(
    ("one", "other"),
    [((192, 256), (1080, 1920)), ((192, 256), (1024, 1536)), ((480, 640), (640, 480))],
)
def test_same_shape__other_aspects_are_others(one, other):
    assert not same_shape(one, other)
