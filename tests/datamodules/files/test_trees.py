"""Folders as cameras, data sets and TUM's tools leave them."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.errors import DataError
from datamodules.files.lists.trees import find_in_tree
from datamodules.files.lists.tum import APART_S, associated
from datamodules.folder import find_pairs


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def found(root: Path, **named) -> list[tuple[str, str]]:
    return [
        (str(pair.image.relative_to(root)), str(pair.depth.relative_to(root)))
        for pair in find_in_tree(root, 1000, **named)
    ]


@pytest.mark.parametrize("depth", ["depths", "depth", "Depth", "depth_gt"])
@pytest.mark.parametrize("image", ["images", "image", "rgb", "RGB", "color", "img"])
def test_tree__common_names_are_found(tmp_path, image, depth):
    touch(tmp_path, f"{image}/a/0.jpg", f"{depth}/a/0.npy", "other/x.txt")
    assert found(tmp_path) == [(f"{image}/a/0.jpg", f"{depth}/a/0.npy")]


@pytest.mark.parametrize(
    ("image", "depth"),
    [
        ("rgb_0001.png", "depth_0001.png"),
        ("0001_rgb.png", "0001_depth.png"),
        ("frame-0001.color.jpg", "frame-0001.depth.png"),
        ("a/rgb-1.png", "a/depth-1.tif"),
        ("0001.png", "0001_depth.exr"),
    ],
)
def test_tree__names_may_say_what_they_are(tmp_path, image, depth):
    touch(tmp_path, f"rgb/{image}", f"depth/{depth}")
    assert found(tmp_path) == [(f"rgb/{image}", f"depth/{depth}")]


def test_tree__scenes_below_the_root(tmp_path):
    touch(tmp_path, "train/b/rgb/0.png", "train/b/depth/0.png")
    touch(tmp_path, "train/a/color/0.jpg", "train/a/depths/0.png", "readme.txt")
    touch(tmp_path, ".cache/rgb/0.png", ".cache/depth/0.png")
    assert found(tmp_path) == [
        ("train/a/color/0.jpg", "train/a/depths/0.png"),
        ("train/b/rgb/0.png", "train/b/depth/0.png"),
    ]
    folders = find_in_tree(tmp_path, 1000).folders()
    assert folders.names == ["train/a/color", "train/b/rgb"]


def test_tree__links_are_followed_once(tmp_path):
    touch(tmp_path / "real", "rgb/0.png", "depth/0.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "scene").symlink_to(tmp_path / "real")
    (tmp_path / "real/rgb/loop").symlink_to(tmp_path / "real/rgb")
    assert found(root) == [("scene/rgb/0.png", "scene/depth/0.png")]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["rgb/0.png", "color/0.png", "depth/0.png"], "has color/, rgb/, any of which"),
        (["rgb/0.png", "depth/0.png", "depth_gt/0.png"], "depth/, depth_gt/, any of"),
        (["photos/0.png", "z/0.png"], r"has photos/, z/; .*--data.image_folder and"),
        (["0.png"], "has no folders; a data root has"),
        (["rgb/0.png", "depth/1.png"], "2 of 2 frames have an image or a depth but"),
        (["rgb/0.png", "rgb/0.jpg", "depth/0.png"], "same stem"),
        (["rgb/0.txt", "depth/0.png"], "has no files that end in"),
        (["rgb/._0.png", "depth/0.png"], "has no files that end in"),
    ],
)
def test_tree__what_cannot_be_told_is_named(tmp_path, names, message):
    with pytest.raises(DataError, match=message):
        found(touch(tmp_path, *names))


def test_tree__names_that_are_given_are_taken(tmp_path):
    touch(tmp_path, "rgb/0.png", "color/0.png", "left/z/0.png", "depth/0.png")
    assert found(tmp_path, image_folder="color")[0][0] == "color/0.png"
    assert found(tmp_path, image_folder="rgb", depth_folder="left/z") == [
        ("rgb/0.png", "left/z/0.png")
    ]
    table = tmp_path / "t.csv"
    table.write_text("image,depth\nrgb/0.png,depth/0.png\n")
    with pytest.raises(DataError, match="image_folder rgb has no effect on the table"):
        find_pairs(table, 1, image_folder="rgb")


def sequence(root: Path, **lists: list[str]) -> Path:
    touch(root, "rgb/1.00.png", "rgb/1.03.png", "rgb/1.10.png")
    touch(root, "depth/1.01.png", "depth/1.04.png", "depth/2.png")
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("# timestamp filename\n" + "\n".join(lines))
    return root


RGB = [f"{t} rgb/{t}.png" for t in ("1.00", "1.03", "1.10")]
DEPTH = [f"{t} depth/{t}.png" for t in ("1.01", "1.04", "2")]


@pytest.mark.parametrize(
    "lists",
    [
        {"rgb": RGB, "depth": DEPTH},
        {
            "associations": [
                " ".join(both) for both in zip(RGB[:2], DEPTH, strict=False)
            ]
        },
        {
            "associations": [
                " ".join(both) for both in zip(DEPTH, RGB[:2], strict=False)
            ]
        },
    ],
    ids=["lists", "rgb first", "depth first"],
)
def test_tum__pictures_and_depths_are_matched_by_time(tmp_path, lists):
    root = sequence(tmp_path / "freiburg1", **lists)
    pairs = find_in_tree(root.parent, 5000)
    assert [(p.image.name, p.depth.name) for p in pairs] == [
        ("1.00.png", "1.01.png"),
        ("1.03.png", "1.04.png"),
    ]


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"rgb": ["1.0"], "depth": DEPTH}, r"rgb.txt line 2 has 1 words; a line has 2"),
        ({"rgb": ["now a.png"], "depth": DEPTH}, "line 2: 'now' is no time"),
        ({"rgb": ["9 rgb/1.00.png"], "depth": DEPTH}, "no picture with a depth map wi"),
        ({"associations": ["1 a/x 1 b/y"]}, "must lie in a folder whose name begins"),
        ({"associations": ["1 rgb/no.png 1 depth/2.png"]}, "1 files that do not exist"),
    ],
)
def test_tum__wrong_lists_are_named(tmp_path, lists, message):
    with pytest.raises(DataError, match=message):
        find_in_tree(sequence(tmp_path, **lists), 5000)


def test_tum__another_unit_is_warned_of(tmp_path):
    root = sequence(tmp_path, rgb=RGB, depth=DEPTH)
    with pytest.warns(UserWarning, match="has 5000 units a metre; depth_scale is 1000"):
        find_in_tree(root, 1000)


def greedy(one, other):
    """TUM's `associate.py`, by its definition: every pair, the closest first."""
    near = [
        (abs(a - b), a, b, i, j)
        for (i, a), (j, b) in itertools.product(enumerate(one), enumerate(other))
        if abs(a - b) < APART_S
    ]
    found, left, right = [], set(range(len(one))), set(range(len(other)))
    for *_, i, j in sorted(near):
        if i in left and j in right:
            left.remove(i)
            right.remove(j)
            found.append((i, j))
    return sorted(found, key=lambda match: one[match[0]])


TIMES = st.lists(st.integers(0, 300).map(lambda n: n / 1000), max_size=12, unique=True)


@given(TIMES, TIMES)
def test_associated__is_the_greedy_match_of_all_pairs(one, other):
    assert associated(one, other) == greedy(one, other)


def test_associated__long_sequences_take_no_quadratic_time():
    times = np.arange(20_000) / 30
    assert len(associated(list(times), list(times + 0.004))) == 20_000


@pytest.mark.parametrize(
    "half", ["rgb/2.png", "depth/2.png", "rgb/2.png depth16/2.png"]
)
def test_tree__a_scene_that_lacks_a_folder_is_said(tmp_path, half):
    root = touch(tmp_path, "s1/rgb/0.png", "s1/depth/0.png", "color/rgb/1.png")
    touch(root, "color/depth/1.png", *(f"a/s3/{name}" for name in half.split()))
    with pytest.warns(UserWarning, match=r"1 folders of .* are left out: a/s3; "):
        assert [image for image, _ in found(root)] == [
            "color/rgb/1.png",
            "s1/rgb/0.png",
        ]
