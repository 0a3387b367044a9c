import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.nn import functional as F

from datamodules import SyntheticDataModule
from datamodules.batch import DataError, Frame
from datamodules.protocols import full
from datamodules.transforms import Augment, TrainTransform

SIZE = (28, 42)


def module(**options) -> SyntheticDataModule:
    data = SyntheticDataModule(
        n_train=7, n_val=5, image_size=SIZE, **{"batch_size": 2, **options}
    )
    data.setup("fit")
    return data


def epoch(loader, number):
    loader.sampler.set_epoch(number)
    return list(loader)


def paths(batches):
    return [path for batch in batches for path in batch["path"]]


def test_train__order_is_a_function_of_seed_and_epoch():
    one, two = (paths(epoch(module().train_dataloader(), 1)) for _ in "12")
    assert one == two
    assert one != paths(epoch(module().train_dataloader(), 2))
    assert one != paths(epoch(module(seed=1).train_dataloader(), 1))


def test_train__same_samples_whatever_the_number_of_workers():
    alone, many = (
        torch.cat(
            [b["image"] for b in epoch(module(num_workers=n).train_dataloader(), 3)]
        )
        for n in (0, 2)
    )
    assert torch.equal(alone, many)


def test_train__augmentation_changes_with_the_epoch():
    loader = module(batch_size=7, cache=True).train_dataloader()
    one, two = (epoch(loader, n)[0] for n in (0, 1))
    order = [two["path"].index(path) for path in one["path"]]
    assert not torch.equal(one["image"], two["image"][order])


def test_resume__goes_on_where_the_state_was_taken():
    loader = module().train_dataloader()
    whole = epoch(loader, 4)
    taken = iter(loader)
    next(taken)
    state = loader.state_dict()
    assert state == {"samples": 2}
    resumed = module().train_dataloader()
    resumed.load_state_dict(state)
    assert paths(epoch(resumed, 4)) == paths(whole[1:])
    # Only the epoch that was interrupted is shortened.
    assert len(epoch(resumed, 5)) == len(whole)


def test_resume__state_of_a_finished_epoch_starts_the_next_one():
    loader = module().train_dataloader()
    whole = epoch(loader, 0)
    resumed = module().train_dataloader()
    resumed.load_state_dict(loader.state_dict())
    assert len(epoch(resumed, 1)) == len(whole)


def test_val__every_frame_once_in_order():
    assert paths(module().val_dataloader()) == [f"rooms/val/{i:05d}" for i in range(5)]


def gradient_frame() -> Frame:
    """Depth that equals 1 + column / 100, and a picture that says the same."""
    cols = np.arange(84)[None].repeat(56, 0)
    image = np.repeat((cols * 3).astype(np.uint8)[..., None], 3, axis=2)
    k = np.array([[60, 0, 30], [0, 60, 20], [0, 0, 1]], np.float32)
    return Frame(image, (1 + cols / 100).astype(np.float32), "frame", k)


def test_transform__image_depth_and_intrinsics_flip_together():
    transform = TrainTransform(SIZE, full(10), Augment(flip=1, colour=0), 0)
    item = transform(gradient_frame(), 0, 0)
    picture, depth = item["image"][0, 10], item["depth"][0, 10]
    assert picture[0] > picture[-1]
    assert depth[0] > depth[-1]
    # Half the size: focal 30; (30 + 0.5) / 2 - 0.5 = 14.75 from the right edge.
    expected = torch.tensor([[30, 0, 41 - 14.75], [0, 30, 9.75], [0, 0, 1]])
    torch.testing.assert_close(item["intrinsics"], expected)


def test_transform__zoom_keeps_depth_values_and_scales_the_focal_length():
    augment = Augment(flip=0, colour=0, scale=(2, 2))
    item = TrainTransform(SIZE, full(10), augment, 0)(gradient_frame(), 0, 0)
    assert item["image"].shape == (3, *SIZE)
    assert item["intrinsics"][0, 0] == 60
    frame_depths = torch.from_numpy(gradient_frame().depth[0])
    assert torch.isin(item["depth"].unique(), frame_depths).all()


def test_transform__truth_out_of_range_is_not_valid():
    transform = TrainTransform(SIZE, full(1.5), Augment(flip=0, colour=0), 0)
    item = transform(gradient_frame(), 0, 0)
    assert torch.equal(item["valid"], (item["depth"] < 1.5) & (item["depth"] > 0))
    assert item["valid"].any()
    assert not item["valid"].all()


def test_transform__rotation_moves_image_depth_and_validity_together():
    augment = Augment(flip=0, colour=0, rotate_deg=30)
    item = TrainTransform(SIZE, full(10), augment, 0)(gradient_frame(), 0, 1)
    frame_depths = torch.from_numpy(gradient_frame().depth[0])
    known = item["depth"][item["valid"]]
    assert torch.isin(known, frame_depths).all()  # nearest: no depth in between
    corners = item["valid"][0, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert not corners.all()  # they turned in from outside
    assert (item["depth"][~item["valid"]] == 0).all()
    # The picture says the same as the depth: column = 100 (depth - 1), grey = 3 column.
    grey = (item["image"][0] * 0.229 + 0.485) * 255
    # At its edge the turned picture is mixed with black.
    outside = F.pad((~item["valid"]).float(), (1, 1, 1, 1), value=1)
    outside = F.max_pool2d(outside, 3, 1)[0] > 0
    says = (1 + grey / 300)[~outside]
    torch.testing.assert_close(says, item["depth"][0][~outside], rtol=0, atol=0.03)


def test_transform__lower_bound_keeps_the_shape_and_crops():
    augment = Augment(flip=0, colour=0, resize="lower_bound")
    item = TrainTransform((28, 28), full(10), augment, 0)(gradient_frame(), 0, 0)
    assert item["image"].shape == (3, 28, 28)
    # 56x84 becomes 28x42, of which 28 columns are left: half the zoom, 0.02 m a column.
    assert item["depth"][0, 0].diff().median() == pytest.approx(0.02, abs=1e-4)
    assert item["intrinsics"][0, 0] == 30


def test_transform__colour_is_zoe_depths():
    """All three or none; with unit gamma left aside, one factor per channel."""
    frame = gradient_frame()
    flat = Frame(np.full_like(frame.image, 100), frame.depth, "flat")
    ranges = Augment(flip=0, colour=1, brightness=(0.5, 0.5))
    plain = TrainTransform(SIZE, full(10), Augment(flip=0, colour=0), 0)(flat, 0, 0)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1) * 255
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1) * 255
    for index in range(20):
        item = TrainTransform(SIZE, full(10), ranges, 0)(flat, 0, index)
        levels = item["image"] * std + mean
        assert (levels.flatten(1).std(1) < 1e-3).all()
        # 100 / 255 to the power 0.9 to 1.1, halved, times 0.9 to 1.1.
        low, high = (255 * (100 / 255) ** g / 2 for g in (1.1, 0.9))
        assert (levels >= low * 0.9 - 1).all()
        assert (levels <= high * 1.1 + 1).all()
    torch.testing.assert_close(
        plain["image"] * std + mean, torch.full((3, *SIZE), 100.0)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotate_deg": 90}, "rotate_deg 90"),
        ({"brightness": (1.2, 0.8)}, "brightness"),
    ],
)
def test_augment__wrong_options_are_named(options, message):
    with pytest.raises(DataError, match=message):
        Augment(**options)


@pytest.mark.parametrize("name", ["image_size", "augment crop"])
def test_setup__sizes_are_whole_patches_of_the_network(name):
    wrong = {"augment": Augment(crop=(30, 42))}
    if name == "image_size":
        wrong = {"image_size": (30, 42)}
    with pytest.raises(DataError, match=f"{name} .* multiples of 14"):
        SyntheticDataModule(**wrong).setup("fit")


def test_overfit_batches__trains_on_the_same_frames_in_every_epoch():
    """Lightning replaces every sampler that is not sequential by class."""
    seen = []

    class Seen(BoringModel):
        def training_step(self, batch, batch_idx):
            seen.append((batch["path"], batch["image"]))
            return self.layer.weight.sum()

        def validation_step(self, batch, batch_idx):
            pass

    data = SyntheticDataModule(n_train=7, n_val=3, image_size=SIZE, batch_size=2)
    Trainer(
        overfit_batches=2,
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(Seen(), data)
    first, second = seen[:2], seen[2:]
    assert [paths for paths, _ in first] == [paths for paths, _ in second]
    for (_, one), (_, two) in zip(first, second, strict=True):
        assert torch.equal(one, two)
