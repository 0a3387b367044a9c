import cv2
import h5py
import numpy as np
import pytest
import torch
from scipy.io import savemat

from datamodules import NYUDataModule
from datamodules.batch import DataError
from datamodules.nyu import INTRINSICS
from datamodules.transforms import Augment
from tests.datamodules.layouts import (
    NYU_SIZE,
    depth_of,
    picture,
    write_nyu_h5,
    write_nyu_lists,
    write_nyu_mat,
)

WRITERS = {"lists": write_nyu_lists, "mat": write_nyu_mat, "h5": write_nyu_h5}


def module(root, stage="fit", **options) -> NYUDataModule:
    given = {"image_size": (28, 42), "num_workers": 0, "batch_size": 2, **options}
    data = NYUDataModule(str(root), **given)
    data.setup(stage)
    return data


@pytest.mark.parametrize("layout", WRITERS)
def test_frames__known_metres_in_every_layout(tmp_path, layout):
    data = module(WRITERS[layout](tmp_path / "nyu"))
    offset = 0.5 if layout == "h5" else 0
    numbers = {"mat": ([0, 2, 4], [1, 3]), "lists": ([0, 1, 2, 3], [0, 1])}
    train, test = numbers.get(layout, ([0, 1, 2], [0, 1]))
    for split, expected in (("train", train), ("val", test), ("test", test)):
        frames = data.frames(split)
        assert len(frames) == len(expected)
        for frame, i in zip(
            (frames[k] for k in range(len(frames))), expected, strict=True
        ):
            np.testing.assert_array_equal(frame.depth, depth_of(i, NYU_SIZE) + offset)
            shown = picture(NYU_SIZE, i).astype(int)
            # JPEG changes a smooth picture by a few levels.
            assert np.abs(frame.image - shown).mean() < (
                3 if layout == "lists" else 0.1
            )
            np.testing.assert_array_equal(frame.intrinsics, INTRINSICS)


def test_mat__inpainted_depth_is_for_training_alone(tmp_path):
    data = module(write_nyu_mat(tmp_path), inpainted=True)
    assert (data.frames("train")[0].depth > 0).all()
    assert (data.frames("test")[0].depth[:48] == 0).all()


def test_mat__several_workers_read_the_same(tmp_path):
    root = write_nyu_mat(tmp_path, frames=9)
    alone, many = (
        torch.cat([b["image"] for b in module(root, num_workers=n).train_dataloader()])
        for n in (0, 2)
    )
    assert torch.equal(alone, many)


def test_mat__the_file_itself_is_a_root(tmp_path):
    write_nyu_mat(tmp_path)
    assert len(module(tmp_path / "nyu_depth_v2_labeled.mat").frames("train")) == 3


def test_batch__eigen_crop_and_training_window(tmp_path):
    augment = Augment(flip=0, colour=0)
    data = module(write_nyu_lists(tmp_path), augment=augment)
    batch = next(iter(data.val_dataloader()))
    rows, cols = batch["valid"][0, 0].nonzero(as_tuple=True)
    # The top tenth of the depth is a hole.
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (48, 470, 41, 600)
    item = next(iter(data.train_dataloader()))
    assert item["depth"].shape == (2, 1, 28, 42)
    # Left of the middle column 320, which is at (320 - 43) / 565 of the window.
    step = item["depth"][0, 0, 20].diff().argmax()
    assert step == round((320 - 43) / 565 * 42) - 1
    focal = item["intrinsics"][0, 0, 0]
    assert focal == pytest.approx(518.8579 * 42 / 565, rel=1e-5)


def test_roots__may_be_given_apart(tmp_path):
    root = write_nyu_lists(tmp_path / "a")
    (root / "sync").rename(tmp_path / "b")
    with pytest.raises(DataError, match=r"none of kitchen_0028b/rgb_0.jpg"):
        module(root)
    assert len(module(root, train_root=str(tmp_path / "b")).frames("train")) == 4


def broken(case, root):
    if case == "no root":
        return root / "nowhere"
    if case == "nothing known":
        root.mkdir()
        return root
    if case in ("cut off", "no such key", "another split", "no split", "bad split"):
        write_nyu_mat(root)
        path = root / "nyu_depth_v2_labeled.mat"
        if case == "cut off":
            path.write_bytes(path.read_bytes()[:100_000])
        if case == "no such key":
            with h5py.File(path, "a") as file:
                del file["rawDepths"]
        if case == "another split":
            numbers = np.array([[700]], np.uint16)
            savemat(root / "splits.mat", {"trainNdxs": numbers, "testNdxs": numbers})
        if case == "no split":
            (root / "splits.mat").unlink()
        if case == "bad split":
            (root / "splits.mat").write_bytes(b"MATLAB?")
        return root
    write_nyu_lists(root)
    train = root / "nyudepthv2_train_files_with_gt.txt"
    if case == "no list":
        train.unlink()
    if case == "empty list":
        train.write_text("\n")
    if case == "four columns":
        train.write_text("a.jpg b.png 500 c.png\n")
    if case == "no truth":
        train.write_text("a.jpg None 518.8579\nb.jpg None 518.8579\n")
    if case == "dense list":
        train.write_text("a.jpg b.png c.png\n")
    if case == "lines to nowhere":
        (root / "sync/kitchen_0028b/rgb_1.jpg").unlink()
        (root / "sync/kitchen_0028b/d_3.png").unlink()
    path = root / "sync/kitchen_0028b/d_0.png"
    if case == "8 bit":
        cv2.imwrite(str(path), np.full(NYU_SIZE, 100, np.uint8))
    if case == "wrong unit":
        cv2.imwrite(str(path), np.full(NYU_SIZE, 50, np.uint16))
    if case == "corrupt depth":
        path.write_bytes(path.read_bytes()[:300])
    if case == "another size":
        image = root / "sync/kitchen_0028b/rgb_0.jpg"
        for file, dtype in ((image, np.uint8), (path, np.uint16)):
            cv2.imwrite(str(file), np.full((240, 320), 2000).astype(dtype))
    return root


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no root", r"nowhere does not exist; .*--data.download true"),
        ("nothing known", "has no nyu_depth_v2_labeled.mat, no nyudepthv2_test"),
        (
            "cut off",
            r"labeled.mat \(100,000 bytes\) cannot be opened as HDF5; it may be",
        ),
        ("no such key", "has no 'rawDepths', only depths, images"),
        ("another split", "has 5 frames, but the split names frame 700"),
        ("no split", "splits.mat does not exist"),
        ("bad split", "cannot be read as MATLAB v5"),
        ("no list", "the list .*train_files_with_gt.txt cannot be read"),
        ("empty list", "is empty"),
        ("four columns", "line 1 has 4 columns"),
        ("no truth", "no line has a depth map, all say None"),
        ("dense list", "'c.png', is no focal length"),
        (
            "lines to nowhere",
            r"names 2 files that do not exist, of 8: .*rgb_1.jpg, .*d_3",
        ),
        ("8 bit", "d_0.png stores uint8"),
        ("wrong unit", "d_0.png has a median depth of 0.05 m"),
        ("corrupt depth", "d_0.png is cut off"),
        ("another size", "border is defined on frames of 640x480 px, not 320x240"),
    ],
)
def test_broken__is_named(tmp_path, case, message):
    root = broken(case, tmp_path / "nyu")
    with pytest.raises(DataError, match=message):
        list(module(root, batch_size=1).train_dataloader())


def test_on_error__skip_goes_on_counts_and_names(tmp_path):
    root = broken("corrupt depth", tmp_path / "nyu")
    (root / "official_splits/test/bathroom/rgb_1.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"d_0.png is cut off"):
        list(module(root).train_dataloader())
    data = module(root, on_error="skip")
    batches = list(data.train_dataloader())
    assert sum(len(b["path"]) for b in batches) == 4
    skipped = [line for b in batches for line in b["skipped"]]
    assert len(skipped) == 1
    assert "d_0.png is cut off" in skipped[0]
    batch = next(iter(data.val_dataloader()))
    assert batch["valid"].flatten(1).any(1).tolist() == [True, False]
    assert "rgb_1.jpg" in batch["skipped"][0]


def test_on_error__many_unreadable_frames_in_a_row_stop_the_run(tmp_path):
    root = write_nyu_lists(tmp_path, train=12)
    for path in (root / "sync").rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="10 frames in a row cannot be read"):
        list(module(root, on_error="skip").train_dataloader())


def test_empty__depth_map_is_no_error(tmp_path):
    root = write_nyu_lists(tmp_path)
    path = root / "official_splits/test/bathroom/d_0.png"
    cv2.imwrite(str(path), np.zeros(NYU_SIZE, np.uint16))
    batch = next(iter(module(root).val_dataloader()))
    assert batch["valid"].flatten(1).any(1).tolist() == [False, True]
    assert batch["skipped"] == []


def test_layout__that_is_not_known():
    with pytest.raises(DataError, match="'folders' is not known; use one of auto"):
        NYUDataModule(layout="folders")


def test_paths__begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_nyu_lists(tmp_path / "nyu")
    path = "~/nyu/nyudepthv2_test_files_with_gt.txt"
    root = "~/nyu/official_splits/test"
    data = module("~/nyu", "test", test_list=path, test_root=root)
    assert len(data.test_dataloader().dataset) == 2
