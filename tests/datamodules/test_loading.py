import numpy as np
import torch

from datamodules import SyntheticDataModule
from datamodules.batch import Frame
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
    assert state == {"taken": 1}
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
