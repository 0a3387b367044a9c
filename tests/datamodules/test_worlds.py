"""Worlds as a data set: kept frames, batches of one shape, and what is refused."""

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from datamodules import WorldsDataModule
from datamodules.errors import DataError
from datamodules.worlds import ShapeSampler, WorldFrames

SIZES = ((28, 42), (42, 28), (28, 56))


def small(**options) -> WorldsDataModule:
    given = {"n_train": 12, "n_val": 2, "n_test": 2, "image_size": (28, 42)}
    return WorldsDataModule(**{**given, "shapes": SIZES, "batch_size": 2, **options})


def test_frames__kept_ones_are_the_made_ones(tmp_path):
    made = WorldFrames("train", 3, SIZES)
    kept = WorldFrames("train", 3, SIZES, folder=tmp_path)
    for i in range(3):
        first, again, plain = kept[i], kept[i], made[i]
        for other in (first, again):
            np.testing.assert_array_equal(other.image, plain.image)
            np.testing.assert_array_equal(other.depth, plain.depth)
            np.testing.assert_array_equal(other.intrinsics, plain.intrinsics)
            assert other.path == plain.path
        assert plain.image.shape[:2] == SIZES[i]
    assert len(list(tmp_path.rglob("*.npz"))) == 3
    assert not list(tmp_path.rglob("*.part"))


def test_frames__splits_and_seeds_are_other_worlds():
    one = WorldFrames("train", 1, SIZES)[0].image
    assert not np.array_equal(one, WorldFrames("val", 1, SIZES)[0].image)
    assert not np.array_equal(one, WorldFrames("train", 1, SIZES, seed=1)[0].image)


def test_frames__a_broken_kept_one_is_named(tmp_path):
    frames = WorldFrames("train", 1, SIZES, folder=tmp_path)
    frames[0]
    (path,) = tmp_path.rglob("*.npz")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"000000\.npz is no frame .* delete it"):
        frames[0]


@pytest.mark.parametrize("replicas", [1, 2])
def test_shape_sampler__each_batch_has_one_shape_and_no_frame_twice(replicas):
    ranks = [ShapeSampler(50, SIZES, 3, replicas, r, seed=0) for r in range(replicas)]
    seen: list[int] = []
    for epoch in (0, 1):
        orders = []
        for sampler in ranks:
            sampler.set_epoch(epoch)
            own = [index for _, index in sampler]
            assert len(own) == len(sampler)
            assert len(own) % 3 == 0
            orders.append(own)
        for start in range(0, len(orders[0]), 3):
            shapes = {SIZES[i % 3] for own in orders for i in own[start : start + 3]}
            assert len(shapes) == 1
        together = sorted(i for own in orders for i in own)
        assert len(set(together)) == len(together)
        seen.append(hash(tuple(orders[0])))
    assert seen[0] != seen[1]


def test_data_module__trains_on_every_shape_and_scores_one(tmp_path):
    data = small(folder=str(tmp_path))
    data.trainer = pl.Trainer(logger=False)
    data.setup("fit")
    shapes = [tuple(b["image"].shape[-2:]) for b in data.train_dataloader()]
    assert sorted(shapes) == sorted(2 * SIZES)
    for batch in data.val_dataloader():
        assert batch["image"].shape[-2:] == (28, 42)
        assert batch["depth"].shape[-2:] == (28, 42)
        assert "intrinsics" in batch


def test_data_module__flips_depth_and_camera_with_the_picture(tmp_path):
    data = small(folder=str(tmp_path), shapes=[(28, 42)])
    data.trainer = pl.Trainer(logger=False)
    data.setup("fit")
    frames = data.opened("train")
    for batch in data.train_dataloader():
        for path, depth in zip(batch["path"], batch["depth"], strict=True):
            made = torch.from_numpy(frames[int(path.split("/")[-1])].depth)[None]
            assert torch.equal(depth, made) or torch.equal(depth, made.flip(-1))


def test_data_module__refuses_what_fills_no_batch():
    data = small(n_train=5, batch_size=3)
    data.trainer = pl.Trainer(logger=False)
    data.setup("fit")
    with pytest.raises(DataError, match="5 frames in 3 shapes fill no batch of 3"):
        data.train_dataloader()


def test_data_module__refuses_shapes_that_are_no_patches():
    data = small(shapes=[(30, 42)])
    data.trainer = pl.Trainer(logger=False)
    with pytest.raises(DataError, match=r"shapes \[30, 42\] .* multiples of 14"):
        data.setup("fit")
