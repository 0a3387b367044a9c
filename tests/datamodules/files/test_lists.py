import pytest

from datamodules.files.hdf5 import read_split
from datamodules.files.lists.field_lists import ListLine, read_list
from tests.conftest import REAL_DATA, needs_real_data

SPLITS = REAL_DATA / "splits"


def test_read_list__three_or_five_columns_none_and_a_leading_slash(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("/a/b.jpg /a/b.png 518.8579\n\nc.png None 721.5 d.png e.png\n")
    assert read_list(path) == [
        ListLine("a/b.jpg", "a/b.png", 518.8579),
        ListLine("c.png", None, 721.5),
    ]


@needs_real_data
@pytest.mark.parametrize(
    ("name", "lines", "with_depth"),
    [
        ("nyudepthv2_train", 24_231, 24_231),
        ("nyudepthv2_test", 654, 654),
        ("kitti_eigen_train", 23_158, 23_158),
        ("kitti_eigen_test", 697, 652),
    ],
)
def test_read_list__official_counts(name, lines, with_depth):
    found = read_list(SPLITS / f"{name}_files_with_gt.txt")
    assert len(found) == lines
    assert sum(line.depth is not None for line in found) == with_depth


@needs_real_data
def test_read_split__official_counts():
    train, test = (
        read_split(SPLITS / "nyu_splits.mat", f"{s}Ndxs") for s in ("train", "test")
    )
    assert (len(train), len(test)) == (795, 654)
    assert (train.min(), train.max(), test.min(), test.max()) == (2, 1439, 0, 1448)
    assert not set(train) & set(test)
