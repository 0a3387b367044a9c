"""HDF5 and MATLAB files that have the names of NYU's and another content."""

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from datamodules.errors import DataError
from datamodules.files.hdf5 import H5Frames, MatFrames, read_split

GOOD = {
    "images": np.zeros((3, 3, 6, 4), np.uint8),
    "rawDepths": np.ones((3, 6, 4), np.float32),
}


def write(path, **content):
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            if value is None:
                file.create_group(name)
            else:
                file[name] = value
    return path


def test_mat__as_the_official_one(tmp_path):
    path = write(tmp_path / "nyu.mat", **GOOD)
    frames = MatFrames(path, np.array([0, 2]), "rawDepths")
    assert len(frames) == 2
    assert frames[1].image.shape == (4, 6, 3)


@pytest.mark.parametrize(
    "other",
    [
        {"images": GOOD["images"].transpose(0, 3, 2, 1)},
        {"images": GOOD["images"] / np.float32(255)},
        {"images": np.uint8(3)},
        {"images": None},
        {"rawDepths": GOOD["rawDepths"][:2]},
        {"rawDepths": GOOD["rawDepths"][:, :3]},
    ],
    ids=["rows first", "floats", "scalar", "group", "fewer depths", "smaller depths"],
)
def test_mat__of_another_form_is_refused(tmp_path, other):
    path = write(tmp_path / "nyu.mat", **{**GOOD, **other})
    with pytest.raises(DataError, match=r"as in NYU's labelled set|is a group"):
        MatFrames(path, np.array([0, 2]), "rawDepths")


def test_h5__pictures_that_are_not_bytes_are_refused(tmp_path):
    rgb, depth = np.ones((3, 4, 6), np.float32), np.ones((4, 6), np.float32)
    frames = H5Frames([write(tmp_path / "0.h5", rgb=rgb, depth=depth)])
    with pytest.raises(DataError, match=r"float32 .* are not \(3, H, W\) uint8"):
        frames[0]


def test_split__counts_from_one(tmp_path):
    savemat(tmp_path / "splits.mat", {"testNdxs": [[1.0], [4.0]]})
    assert read_split(tmp_path / "splits.mat", "testNdxs").tolist() == [0, 3]


@pytest.mark.parametrize("numbers", [[[0], [1]], [[2.5]], [[np.nan]], "abc", [[-1]]])
def test_split__of_other_numbers_is_refused(tmp_path, numbers):
    """From 0, the first frame would be the file's last one."""
    savemat(tmp_path / "splits.mat", {"testNdxs": numbers})
    with pytest.raises(DataError, match="which MATLAB counts from 1"):
        read_split(tmp_path / "splits.mat", "testNdxs")
