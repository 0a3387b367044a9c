"""A canonical camera: near with a short focal length looks as far with a long one."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from app.prediction.camera import input_focal_px as in_prediction
from datamodules import SyntheticDataModule
from datamodules.batch import Frame, ImageInput
from datamodules.errors import DataError
from datamodules.loading import collate
from datamodules.protocols import full
from datamodules.raycasting.scenes import STREET_CAMERA
from datamodules.transforms import Augment, EvalTransform, TrainTransform
from models import DepthAnythingModule
from models.adapters import Lava
from models.artefacts.checkpoint import read_checkpoint
from models.camera import SeenCameras, canonical_focal, input_focal_px, to_metres
from models.errors import CheckpointError, OptionError

CAMERA = ImageInput(focal=True)
SIZE = (28, 42)


def frame(focal_px, rows=40, cols=60, known=True):
    k = np.array([[focal_px, 0, 30], [0, focal_px, 20], [0, 0, 1]], np.float32)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (rows, cols, 3), np.uint8)
    depth = np.full((rows, cols), 5, np.float32)
    return Frame(image, depth, f"{focal_px}.png", k if known else None)


@pytest.mark.parametrize("resize", ["full", "lower_bound"])
def test_focal__is_that_of_the_networks_input(resize):
    """However a frame is brought to it: squashed, cropped, kept in its shape."""
    augment = Augment(resize=resize, flip=1.0, colour=0)
    train = TrainTransform(SIZE, full(10.0), augment, 0, image_input=CAMERA)
    # 40x60 to 28x42 is 0.7 on both axes, to which lower_bound comes, too.
    found = input_focal_px(collate([train(frame(100), 0, 0), train(frame(50), 0, 1)]))
    assert found.tolist() == pytest.approx([70, 35], rel=1e-4)
    squash = EvalTransform((14, 42), full(10.0), CAMERA)
    found = input_focal_px(collate([squash(frame(100))]))
    assert found.item() == pytest.approx(100 * (14 / 40 * 42 / 60) ** 0.5, rel=1e-5)
    asked = in_prediction((100, 100, 30, 20), (40, 60), (14, 42))
    assert found.item() == pytest.approx(asked, rel=1e-6)


@pytest.mark.parametrize("transform", ["train", "eval"])
def test_frame__without_a_focal_length_is_named(transform):
    unknown = frame(100, known=False)
    train = TrainTransform(SIZE, full(10.0), Augment(), 0, image_input=CAMERA)
    given = (unknown, 0, 0) if transform == "train" else (unknown,)
    used = train if transform == "train" else EvalTransform(SIZE, full(10.0), CAMERA)
    with pytest.raises(DataError, match=r"100\.png has no focal length"):
        used(*given)


def test_metres__are_the_canonical_ones_times_the_focal_ratio():
    depth = torch.tensor([2.0, 2.0]).view(2, 1, 1, 1)
    metres = to_metres(depth, torch.tensor([600.0, 150.0]), 300.0)
    assert metres.flatten().tolist() == [4.0, 1.0]


def test_seen_cameras__range_and_what_is_out_of_reach():
    seen = SeenCameras()
    assert seen.focals_px() is None
    target = torch.tensor([1.0, 9.0]).view(2, 1, 1, 1)
    everywhere = torch.ones_like(target, dtype=torch.bool)
    seen.note(torch.tensor([80.0, 90.0]), target, everywhere, torch.tensor([8.0, 8.5]))
    assert seen.focals_px() == (80.0, 90.0)
    assert "80 px ends at 8 m" in seen.out_of_reach(100.0, 10.0)
    assert seen.out_of_reach(100.0, 10.0) is None
    seen.gathered(torch.tensor([[70.0, 75.0], [80.0, 90.0]]))
    assert seen.focals_px() == (70.0, 90.0)


def test_options__that_do_not_go_together():
    assert canonical_focal("any", None) is None
    assert canonical_focal("canonical", None) == 300
    with pytest.raises(OptionError, match="has no effect without camera"):
        canonical_focal("any", 100.0)


def module(focal_px=60.0):
    torch.manual_seed(0)
    return DepthAnythingModule(
        80.0,
        SIZE,
        size="tiny",
        weights="tiny-rooms",
        adapter=Lava(rank=2),
        camera="canonical",
        canonical_focal_px=focal_px,
    )


def trainer(folder, epochs):
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )


def test_training__records_its_camera_and_the_focal_lengths_seen(tmp_path, recwarn):
    data = SyntheticDataModule(
        "streets", n_train=4, n_val=2, image_size=SIZE, batch_size=2
    )
    trained = module()
    run = trainer(tmp_path, 1)
    run.fit(trained, data)
    said = " ".join(str(warning.message) for warning in recwarn)
    assert "out of reach: with canonical_focal_px 60" in said
    run.save_checkpoint(tmp_path / "x.ckpt")
    record, _ = read_checkpoint(tmp_path / "x.ckpt")
    assert record.network.canonical_focal_px == 60
    low, high = record.focals_px
    narrow, wide = (
        SIZE[1] / 2 / np.tan(np.radians(fov) / 2) for fov in STREET_CAMERA.fov_deg[::-1]
    )
    assert narrow <= low <= high <= wide
    with pytest.raises(CheckpointError, match="canonical_focal_px=60"):
        trainer(tmp_path, 2).fit(
            module(90.0), data, ckpt_path=tmp_path / "x.ckpt", weights_only=True
        )


def test_loss__of_one_scene_is_equal_for_two_cameras():
    """Twice the focal length at twice the distance: one picture, one loss."""
    network = module().eval()
    near, far = frame(50), frame(100)
    far = Frame(near.image, near.depth * 2, far.path, far.intrinsics)
    transform = EvalTransform(SIZE, full(80.0), CAMERA)
    losses = []
    for one in (near, far):
        batch = collate([transform(one)])
        network.log = lambda *a, **k: None
        batch["depth"] = batch["depth"][..., :28, :42]
        batch["valid"] = batch["valid"][..., :28, :42]
        losses.append(network.training_step(batch, 0).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
