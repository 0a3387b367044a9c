"""The data module that every data set shares."""

from dataclasses import replace
from typing import Any, get_args

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader, Dataset

from datamodules.batch import DepthBatch, DepthItem, Frames, ImageInput
from datamodules.errors import DataError
from datamodules.loading import (
    EpochSampler,
    EvalDataset,
    OnError,
    RepeatingSampler,
    ResumableLoader,
    ShareSampler,
    TrainDataset,
    collate,
)
from datamodules.protocols import Protocol, WindowName, full
from datamodules.sizes import Shrink, check_image_size
from datamodules.splits import Split as Split
from datamodules.transforms import Augment, EvalTransform, TrainTransform


class DepthDataModule(LightningDataModule):
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
        super().__init__()
        if image_shrink not in get_args(Shrink):
            raise DataError(
                f"image_shrink {image_shrink!r} is not known; use area or cubic"
            )
        if on_error not in get_args(OnError):
            raise DataError(f"on_error {on_error!r} is not known; use error or skip")
        if batch_size < 1 or num_workers < 0:
            raise DataError(
                f"batch_size {batch_size} must be at least 1 and num_workers "
                f"{num_workers} at least 0"
            )
        self.image_size = image_size
        self.image_input = ImageInput(shrink=image_shrink)
        """What the network reads; the trainer's model is asked in `setup`."""
        self.max_depth = max_depth
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.augment, self.on_error = augment, on_error
        self.adapter: str | None = None
        """Of mixed data: the name that this source has, and its adapter."""
        self._train_loader: ResumableLoader | None = None
        self._resume_at: dict[str, int] | None = None

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
        wanted: dict[str, tuple[Split, ...]] = {
            "fit": ("train", "val"),
            "validate": ("val",),
            "test": ("test",),
        }
        self._frames = {split: self.frames(split) for split in wanted.get(stage, ())}
        for split, frames in self._frames.items():
            if len(frames) == 0:
                raise DataError(f"the {split} split has no frames")
            processes, _ = self._replicas()
            if len(frames) < processes:
                # A process without any would not join the others' sums of scores.
                raise DataError(
                    f"the {split} split has {len(frames)} frames for {processes} "
                    "processes; use fewer devices, or hold out more frames"
                )

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

    def resumable(
        self, frames: Dataset[DepthItem], sampler: EpochSampler
    ) -> ResumableLoader:
        """The loader of the training frames, at the place where a run goes on."""
        self._train_loader = ResumableLoader(
            frames,
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=len(sampler) >= self.batch_size,
            **self._loading(),
        )
        if self._resume_at is not None:
            self._train_loader.load_state_dict(self._resume_at)
        return self._train_loader

    def state_dict(self) -> dict[str, Any]:
        """The place within the epoch, for Lightning's checkpoints.

        Lightning also stores the loader's own state, but gives it back only to a
        loader that was not yet made when the optimiser was (seen in 2.6), and a
        schedule over all steps has to know the loader's length.
        """
        return self._train_loader.state_dict() if self._train_loader else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._resume_at = state_dict or None

    def val_dataloader(self) -> DataLoader[DepthItem]:
        """Every frame once, in order."""
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[DepthItem]:
        """Every frame once, in order."""
        return self._eval_loader("test")

    def _eval_loader(self, split: Split) -> DataLoader[DepthItem]:
        frames = self._frames[split]
        sampler = ShareSampler(frames, *self._replicas(), shuffle=False)
        protocol = self.protocol
        transform = EvalTransform(self.image_size, protocol, self.image_input)
        if protocol.input_px is not None and protocol.input_px != min(self.image_size):
            rank_zero_info(
                f"{protocol.name} shows frames to the network at {protocol.input_px} "
                f"px and more a side, not at image_size {list(self.image_size)}"
            )
        # Inputs in the frames' own shapes do not stack.
        one_by_one = protocol.resize == "lower_bound"
        return DataLoader(
            EvalDataset(frames, transform, self.on_error, self.adapter),
            batch_size=1 if one_by_one else self.batch_size,
            sampler=sampler,
            **self._loading(),
        )

    def _replicas(self) -> tuple[int, int]:
        if self.trainer is None:
            return 1, 0
        return self.trainer.world_size, self.trainer.global_rank

    def _loading(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "collate_fn": collate,
            "pin_memory": torch.cuda.is_available(),
            "persistent_workers": self.num_workers > 0,
        }
