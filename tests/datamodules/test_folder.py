import math

import cv2
import numpy as np
import pytest

from datamodules import FolderDataModule
from datamodules.batch import DataError


def module(root, **options) -> FolderDataModule:
    given = {
        "depth_scale": 1000,
        "max_depth": 10,
        "image_size": (28, 42),
        "num_workers": 0,
    }
    data = FolderDataModule(str(root), **{**given, **options})
    data.setup("fit")
    return data


def test_setup__split_is_disjoint_and_whole(rgbd):
    data = module(rgbd, val_fraction=0.34)
    train, val = (
        {frames[i].path for i in range(len(frames))}
        for frames in (data.frames("train"), data.frames("val"))
    )
    assert (len(train), len(val)) == (4, 2)
    assert not train & val


def test_batch__known_metres_at_their_own_size(rgbd):
    data = module(rgbd, val_fraction=0.5, batch_size=3)
    batch = next(iter(data.val_dataloader()))
    assert batch["image"].shape == (3, 3, 28, 42)
    assert batch["depth"].shape == (3, 1, 40, 56)
    for i, path in enumerate(batch["path"]):
        metres = int(path.split("/")[-1].removesuffix(".jpg")) + 1
        assert batch["depth"][i, 0, 5, 5] == metres
    assert not batch["valid"][:, 0, 0, 0].any()
    assert batch["valid"][:, 0, 1:].all()


def test_csv__paths_scales_and_intrinsics(rgbd, tmp_path):
    table = rgbd / "frames.csv"
    lines = ["image,depth,fx,fy,cx,cy,depth_scale"]
    lines += [
        f"images/a/{i}.jpg,depths/a/{i}.png,50,51,27.5,19.5,500" for i in range(4)
    ]
    table.write_text("\n".join(lines) + "\n")
    frame = module(table, val_fraction=0.5).frames("train")[0]
    index = int(frame.path.split("/")[-1].removesuffix(".jpg"))
    assert frame.depth[5, 5] == 2 * (index + 1)
    np.testing.assert_allclose(
        frame.intrinsics, [[50, 0, 27.5], [0, 51, 19.5], [0, 0, 1]]
    )


def test_val_root__is_used_for_validation(rgbd, tmp_path):
    from shutil import copytree

    other = copytree(rgbd, tmp_path / "other")
    data = module(rgbd, val_root=str(other))
    assert len(data.frames("train")) == len(data.frames("val")) == 6
    assert data.frames("val")[0].path.startswith(str(other))


def break_size(root):
    cv2.imwrite(str(root / "depths/a/1.png"), np.full((20, 20), 2000, np.uint16))


def break_pair(root):
    (root / "depths/a/1.png").unlink()


def break_twin(root):
    cv2.imwrite(str(root / "images/a/1.png"), np.zeros((40, 56, 3), np.uint8))


def break_empty(root):
    for path in root.rglob("*.*"):
        path.unlink()


def read_all(root):
    frames = module(root).frames("train")
    return [frames[i] for i in range(len(frames))]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_size, r"1\.jpg is 56x40 px but its depth .*1\.png is 20x20"),
        (break_pair, "1 of 6 frames have an image or a depth but not both: a/1"),
        (break_twin, "same stem"),
        (break_empty, "has no files that end in"),
    ],
)
def test_damaged_root__says_what_is_wrong(rgbd, damage, message):
    damage(rgbd)
    with pytest.raises(DataError, match=message):
        read_all(rgbd)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth_scale": 0}, "depth_scale 0 must be above 0"),
        ({"val_fraction": 0.01}, "would hold out 0"),
        ({"val_fraction": 2}, "val_fraction 2"),
        ({"image_size": (30, 42)}, r"multiples of 14; the nearest is \[28, 42\]"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"depth_scale": math.inf}, "depth_scale inf must be above 0 and finite"),
        ({"max_depth": -5}, "max_depth -5 must be metres, above 0 and finite"),
        ({"max_depth": math.nan}, "max_depth nan"),
        ({"image_size": (0, 42)}, r"image_size \[0, 42\] must be"),
        ({"seed": -1}, "seed -1 must be a whole number from 0 to 4294967295"),
        ({"seed": 2**32}, "seed 4294967296"),
        ({"root": ""}, "root is empty"),
    ],
)
def test_options__wrong_ones_are_named(rgbd, options, message):
    with pytest.raises(DataError, match=message):
        module(**{"root": rgbd, **options})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rgb,depth\na,b\n", "its first line must be image,depth"),
        ("image,depth\na.jpg,b.png\n", "names 2 files that do not exist, of 2"),
        ("image,depth\n", "has no frames"),
        ("image,depth,fx\na.jpg,b.png,wide\n", "line 2"),
    ],
)
def test_csv__wrong_tables_are_named(tmp_path, text, message):
    table = tmp_path / "frames.csv"
    table.write_text(text)
    with pytest.raises(DataError, match=message):
        module(table)


def test_missing_root__is_named(tmp_path):
    with pytest.raises(DataError, match="does not exist; give a folder"):
        module(tmp_path / "nowhere")
