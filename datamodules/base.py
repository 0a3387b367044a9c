"""The data module that every data set shares."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch.utils.data import DataLoader

from datamodules.batch import DepthBatch, DepthItem, Frames, ImageInput
from datamodules.errors import DataError
from datamodules.loading import (
    EpochSampler,
    EvalDataset,
    OnError,
    RepeatingSampler,
    ResumableLoader,
    TrainDataset,
    collate,
)
from datamodules.protocols import Protocol, WindowName, full
from datamodules.sizes import Shrink, Size, check_image_size
from datamodules.splits import Split as Split
from datamodules.task_data import TaskDataModule
from datamodules.transforms import Augment, EvalTransform, TrainTransform

HELD_OUT = "held_out"


class DepthDataModule(TaskDataModule):
    """Loaders over `Frames`; a data set's module only says where its frames are.

    Args:
        image_size: Network input (rows, cols) in pixels, in whole patches of the
            network (multiples of 14 for Depth Anything and DINOv2).
        max_depth: Metres; truth beyond it is ignored. The model's own max_depth is
            linked to it, so a value given there is overruled.
        batch_size: Frames per process and step.
        num_workers: Processes that load frames; 0 loads in the main one.
        seed: Order of the training frames and their augmentation.
        augment: What training does to a frame.
        on_error: A frame that cannot be read stops the run with its name, or is left
            out (`skip`), counted and named.
        image_shrink: How pictures more than 1.5 times as large as the input are made
            smaller: by the `area`'s mean, or `cubic` without a filter, as the official
            code does.
    """

    gives = "pictures"

    def __init__(
        self,
        image_size: tuple[int, int],
        max_depth: float,
        batch_size: int,
        num_workers: int,
        seed: int,
        augment: Augment,
        on_error: OnError = "error",
        image_shrink: Shrink = "area",
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        if image_shrink not in get_args(Shrink):
            raise DataError(
                f"image_shrink {image_shrink!r} is not known; use area or cubic"
            )
        if on_error not in get_args(OnError):
            raise DataError(f"on_error {on_error!r} is not known; use error or skip")
        if not 0 < max_depth < math.inf:
            raise DataError(f"max_depth {max_depth} must be metres, above 0 and finite")
        if min(image_size) < 1:
            raise DataError(
                f"image_size {[*image_size]} must be (rows, cols) of at least one pixel"
            )
        self.image_size = image_size
        self.image_input = ImageInput(shrink=image_shrink)
        """What the network reads; the trainer's model is asked in `setup`."""
        self.max_depth = max_depth
        self.augment, self.on_error = augment, on_error
        self.adapter: str | None = None
        """Of mixed data: the name that this source has, and its adapter."""

    @property
    def protocol(self) -> Protocol:
        """The rules that validation and test are scored by."""
        raise NotImplementedError

    @property
    def train_window(self) -> WindowName:
        """The part of a frame that is trained on."""
        return self.protocol.window

    @property
    def parts(self) -> dict[str, "DepthDataModule"]:
        """The sources of mixed data by name; any other is its own, without a name."""
        return {"": self}

    def source_of(self, batch: DepthBatch) -> "DepthDataModule":
        """The one that a batch of validation or test is from."""
        return self

    def frames(self, split: Split) -> Frames:
        """The frames of one split; called in every process, after `prepare_data`."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Ask the model for its input, open what a stage needs, refuse empty splits."""
        model = None if self.trainer is None else self.trainer.lightning_module
        wanted_input = getattr(model, "image_input", self.image_input)
        self.image_input = replace(wanted_input, shrink=self.image_input.shrink)
        patch_px = self.image_input.patch_px
        check_image_size(self.image_size, patch_px)
        if self.augment.crop is not None:
            check_image_size(self.augment.crop, patch_px, "augment crop")
            self._check_crop(self.augment.crop)
        wanted: dict[str, tuple[Split, ...]] = {
            "fit": ("train", "val"),
            "validate": ("val",),
            "test": ("test",),
        }
        self._frames = {split: self.frames(split) for split in wanted.get(stage, ())}
        for split, frames in self._frames.items():
            self.check_count(split, len(frames), "frames")

    @property
    def frame_sizes(self) -> list[Size]:
        """What training brings frames to, before `augment.crop`."""
        return [self.image_size]

    def _check_crop(self, crop: Size) -> None:
        for size in self.frame_sizes:
            if crop[0] > size[0] or crop[1] > size[1]:
                raise DataError(
                    f"augment crop {[*crop]} (rows, cols) is cut from images of "
                    f"{[*size]}; give a smaller one, or a larger image_size"
                )

    def split_identity(self) -> dict[str, str]:
        """The `options` that frames are held out by, and which `frames`, if any can."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        held = {name: part.split_identity() for name, part in self.parts.items()}
        return {**super().state_dict(), HELD_OUT: held}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        then = state_dict.get(HELD_OUT, {})
        for name, part in self.parts.items():
            now, before = part.split_identity(), then.get(name, {})
            same = now.get("options") == before.get("options")
            if before and same and now["frames"] != before["frames"]:
                rank_zero_warn(
                    f"{name + ': ' if name else ''}frames were added, removed or "
                    "renamed, and others are held out than when the checkpoint was "
                    "written: it has been trained on some of them"
                )
        place = {key: state_dict[key] for key in state_dict if key != HELD_OUT}
        super().load_state_dict(place)

    def opened(self, split: Split) -> Frames:
        """The frames of a split that `setup` has opened."""
        return self._frames[split]

    def train_set(self) -> TrainDataset:
        """The training frames as they are trained on."""
        transform = TrainTransform(
            self.image_size,
            full(self.max_depth),
            self.augment,
            self.seed,
            self.train_window,
            self.image_input,
        )
        frames = self._frames["train"]
        return TrainDataset(frames, transform, self.on_error, self.adapter)

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled batches; the last incomplete one is dropped if there is another."""
        frames = self._frames["train"]
        if getattr(self.trainer, "overfit_batches", 0):
            sampler: EpochSampler = RepeatingSampler(frames, *self._replicas())
        else:
            sampler = EpochSampler(frames, *self._replicas(), seed=self.seed)
        return self.resumable(self.train_set(), sampler)

    def val_dataloader(self) -> DataLoader[DepthItem]:
        """Every frame once, in order."""
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[DepthItem]:
        """Every frame once, in order."""
        return self._eval_loader("test")

    def _eval_loader(self, split: Split) -> DataLoader[DepthItem]:
        frames = self._frames[split]
        protocol = self.protocol
        transform = EvalTransform(self.image_size, protocol, self.image_input)
        if protocol.input_px is not None and protocol.input_px != min(self.image_size):
            rank_zero_info(
                f"{protocol.name} shows frames to the network at {protocol.input_px} "
                f"px and more a side, not at image_size {list(self.image_size)}"
            )
        # Inputs in the frames' own shapes do not stack.
        one_by_one = protocol.resize == "lower_bound"
        return self.in_order(
            EvalDataset(frames, transform, self.on_error, self.adapter),
            1 if one_by_one else self.batch_size,
        )

    @property
    def collate(self) -> Callable[[list[DepthItem]], DepthBatch]:
        return collate
