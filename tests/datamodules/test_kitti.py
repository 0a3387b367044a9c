import numpy as np
import pytest

from datamodules import KITTIDataModule
from datamodules.batch import DataError
from datamodules.transforms import Augment
from tests.datamodules.layouts import KITTI_SIZE, depth_of, write_kitti

SIZE = (28, 98)


def module(root, stage="fit", **options) -> KITTIDataModule:
    given = {"image_size": SIZE, "num_workers": 0, "batch_size": 3, **options}
    data = KITTIDataModule(str(root), **given)
    data.setup(stage)
    return data


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"parts": ("train",)},
        {"annotated": "data_depth_annotated"},
        {"annotated": "gt_depth"},
        {"annotated": "data_depth_annotated_zoedepth/{}"},
        {"annotated": "{}"},
    ],
)
def test_frames__known_metres_wherever_the_truth_was_unpacked(tmp_path, layout):
    data = module(write_kitti(tmp_path, **layout))
    for split in ("train", "test"):
        frames = data.frames(split)
        assert len(frames) == 3  # the fourth test line has no truth
        for i in range(3):
            np.testing.assert_array_equal(frames[i].depth, depth_of(i, KITTI_SIZE))


def test_roots__may_be_given_apart(tmp_path):
    root = write_kitti(tmp_path / "lists")
    for name in ("2011_09_26", "2011_09_28"):
        (tmp_path / "drives").mkdir(exist_ok=True)
        (root / name).rename(tmp_path / "drives" / name)
    (root / "data_depth_annotated").rename(tmp_path / "truth")
    with pytest.raises(DataError, match="KITTI's raw drives: none of"):
        module(root)
    apart = {"raw_root": tmp_path / "drives", "depth_root": tmp_path / "truth"}
    data = module(root, **{name: str(path) for name, path in apart.items()})
    assert len(data.frames("train")) == 3


def test_train__kb_window_and_random_crops(tmp_path):
    augment = Augment(flip=0, colour=0, crop=(28, 56))
    data = module(write_kitti(tmp_path), augment=augment)
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (3, 3, 28, 56)
    assert batch["depth"].shape == (3, 1, 28, 56)
    whole = module(tmp_path, augment=Augment(flip=0, colour=0))
    depth = next(iter(whole.train_dataloader()))["depth"][0, 0, 20]
    # The middle column 621 of the frame is 608 of the window's 1216.
    assert depth.diff().argmax() == 48


@pytest.mark.parametrize(
    ("name", "size", "rows", "network"),
    [
        ("kitti_eigen_garg_kb", (352, 1216), (143, 348), SIZE),
        ("kitti_eigen_garg_full", (352, 1216), (130, 347), SIZE),
        # Depth Anything V2's Resize(518, 518, lower_bound, 14) of 375x1242.
        ("kitti_da2", KITTI_SIZE, (37, 374), (518, 1722)),
    ],
)
def test_eval__window_and_crop_of_each_protocol(tmp_path, name, size, rows, network):
    data = module(write_kitti(tmp_path), "test", eval_protocol=name)
    batch = next(iter(data.test_dataloader()))
    assert batch["depth"].shape[-2:] == size
    assert batch["image"].shape[-2:] == network
    found = batch["valid"][0, 0].nonzero()[:, 0]
    assert (found.min(), found.max()) == rows


def test_eval__frames_of_other_sizes_make_one_batch(tmp_path):
    write_kitti(tmp_path / "a")
    root = write_kitti(tmp_path / "b", size=(370, 1226))
    data = module(root, "test")
    assert next(iter(data.test_dataloader()))["depth"].shape == (3, 1, 352, 1216)
    data = module(root, "test", eval_protocol="kitti_da2")
    batches = list(data.test_dataloader())
    assert [len(b["path"]) for b in batches] == [1, 1, 1]
    assert batches[0]["depth"].shape[-2:] == (370, 1226)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no list", "does not exist; it is Eigen's list .*--data.train_list"),
        ("no depth", "KITTI's annotated depth: none of"),
        ("all None", "no line has a depth map"),
        ("one missing", r"names 1 files that do not exist, of 6: .*0000000002.png"),
        ("resized", "a frame of 640x192 px has no KB window"),
    ],
)
def test_broken__is_named(tmp_path, case, message):
    root = write_kitti(
        tmp_path / "k", size=(192, 640) if case == "resized" else KITTI_SIZE
    )
    source = root / "kitti_eigen_train_files_with_gt.txt"
    if case == "no list":
        source.unlink()
    if case == "no depth":
        (root / "data_depth_annotated").rename(tmp_path / "away")
    if case == "all None":
        source.write_text("a.png None 721.5\n")
    if case == "one missing":
        next((root / "data_depth_annotated").rglob("*0002_sync/**/*2.png")).unlink()
    with pytest.raises(DataError, match=message):
        list(module(root).train_dataloader())


def test_list__of_two_columns_with_comments_and_a_byte_order_mark(tmp_path):
    """As Depth Anything V2 has them; paths of files of this disk are taken as such."""
    root = write_kitti(tmp_path)
    path = root / "kitti_eigen_train_files_with_gt.txt"
    lines = [line.split()[:2] for line in path.read_text().splitlines()]
    lines[0][0] = str(root / lines[0][0])
    text = "# image depth\n" + "\n".join(" ".join(line) for line in lines)
    path.write_text(text, "utf-8-sig")
    frames = KITTIDataModule(str(root)).frames("train")
    assert len(frames) == len(lines)
    assert frames[0].intrinsics is None
