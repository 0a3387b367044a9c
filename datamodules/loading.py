"""Samplers and loaders: shuffled by epoch, resumable, and never padded."""

import itertools
from collections.abc import Iterator, Sequence
from math import inf
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    SequentialSampler,
)

from datamodules.batch import DepthBatch, DepthItem, Frames
from datamodules.errors import DataError
from datamodules.transforms import EvalTransform, TrainTransform

OnError = Literal["error", "skip"]
SKIPS_IN_A_ROW = 10
GROUPED = 50
"""Batches whose items are sorted by length together, as in transformers' sampler."""


class TrainDataset(Dataset[DepthItem]):
    """Frames through the training transform, addressed by (epoch, index).

    A frame that cannot be read is, where they may be skipped, replaced by the next
    one that can.
    """

    def __init__(
        self,
        frames: Frames,
        transform: TrainTransform,
        on_error: OnError = "error",
        adapter: str | None = None,
    ) -> None:
        self.frames, self.transform, self.on_error = frames, transform, on_error
        self.adapter = adapter

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key: tuple[int, int]) -> DepthItem:
        epoch, index = key
        skipped = ""
        for step in range(SKIPS_IN_A_ROW):
            try:
                frame = self.frames[(index + step) % len(self.frames)]
                item = self.transform(frame, epoch, index)
            except DataError as error:
                if self.on_error == "error":
                    raise
                skipped = skipped or str(error)
            else:
                item["skipped"] = skipped
                return _named(item, self.adapter)
        raise DataError(
            f"{SKIPS_IN_A_ROW} frames in a row cannot be read, the first one because: "
            f"{skipped}"
        )


class EvalDataset(Dataset[DepthItem]):
    """Frames through the evaluation transform.

    Of a frame that cannot be read, where they may be skipped, nothing is valid.
    """

    def __init__(
        self,
        frames: Frames,
        transform: EvalTransform,
        on_error: OnError = "error",
        adapter: str | None = None,
    ) -> None:
        self.frames, self.transform, self.on_error = frames, transform, on_error
        self.adapter = adapter

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> DepthItem:
        try:
            item = self.transform(self.frames[index])
        except DataError as error:
            if self.on_error == "error":
                raise
            item = DepthItem(
                image=torch.zeros(3, *self.transform.size),
                depth=torch.zeros(1, 1, 1),
                valid=torch.zeros(1, 1, 1, dtype=torch.bool),
                size=(1, 1),
                path="",
                skipped=str(error),
                intrinsics=torch.eye(3),
            )
        return _named(item, self.adapter)


class EpochSampler(DistributedSampler[Any]):
    """Shuffled (epoch, index) pairs, a function of seed and epoch alone.

    Carrying the epoch to the data set lets augmentation depend on it even in worker
    processes that outlive an epoch.
    """

    skip = 0
    """Leave out this many of the first samples, once."""

    def __iter__(self) -> Iterator[tuple[int, int]]:
        skip, self.skip = self.skip, 0
        indices = itertools.islice(self.order(), skip, None)
        return ((self.epoch, index) for index in indices)

    def order(self) -> Iterator[int]:
        """This process's indices of the epoch."""
        return cast(Iterator[int], super().__iter__())


class BatchedSampler(EpochSampler):
    """Likewise, in batches that are made first and then shuffled."""

    def batches(self, generator: torch.Generator) -> list[list[int]]:
        """The epoch's batches over all processes; an incomplete one is the last."""
        raise NotImplementedError

    def order(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        batches = self.batches(generator)
        # The incomplete one stays last, where it is dropped.
        last = batches.pop() if len(batches[-1]) < len(batches[0]) else []
        which = torch.randperm(len(batches), generator=generator).tolist()
        mixed = [index for i in which for index in batches[i]] + last
        return iter(mixed[self.rank :: self.num_replicas])


class LengthSampler(BatchedSampler):
    """Batches of items of about one length.

    Args:
        lengths: Of the items.
        batch_size: Per process.
        replicas: Processes.
        rank: Of this one.
        seed: Of the order.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        replicas: int,
        rank: int,
        seed: int,
    ) -> None:
        super().__init__(cast(Any, lengths), replicas, rank, seed=seed)
        self.lengths, self.batch = lengths, batch_size * replicas

    def batches(self, generator: torch.Generator) -> list[list[int]]:
        shuffled = torch.randperm(len(self.lengths), generator=generator).tolist()
        shuffled += shuffled[: self.total_size - len(shuffled)]
        size = GROUPED * self.batch
        groups = (shuffled[i : i + size] for i in range(0, len(shuffled), size))
        ordered = [
            index
            for group in groups
            for index in sorted(group, key=self.lengths.__getitem__, reverse=True)
        ]
        return [ordered[i : i + self.batch] for i in range(0, len(ordered), self.batch)]


class RepeatingSampler(EpochSampler, SequentialSampler):  # type: ignore[misc]
    """The same (epoch, index) pairs in every epoch, in order.

    For `trainer.overfit_batches`, where Lightning puts torch's own sampler in the place
    of any that is no `SequentialSampler` by class.
    """

    def __init__(self, frames: Dataset[Any], replicas: int, rank: int) -> None:
        DistributedSampler.__init__(self, frames, replicas, rank, shuffle=False)

    def set_epoch(self, epoch: int) -> None:
        """Stay where it is: augmentation is the same each time, too."""


class ShareSampler(DistributedSampler[Any], SequentialSampler):
    """Every frame once, in order, each process its share.

    torch's own pads the shares to equal length with repeated frames, which would count
    twice in the metrics. A `DistributedSampler` by class, so that Lightning does not
    share out the shares again, and a `SequentialSampler`, so that `overfit_batches`
    leaves it.
    """

    def __iter__(self) -> Iterator[int]:
        return iter(self._share)

    def __len__(self) -> int:
        return len(self._share)

    @property
    def _share(self) -> range:
        return range(self.rank, len(self.dataset), self.num_replicas)  # type: ignore[arg-type]


class ResumableLoader(DataLoader[Any]):
    """A loader over an `EpochSampler` whose place in the epoch can be saved.

    Without it, a run that stopped inside an epoch would, resumed, see the epoch's
    first samples twice and its last ones never.
    """

    taken = 0
    """Batches of this epoch that were handed out, before a resumption too."""
    _skip = 0

    @property
    def samples_per_step(self) -> int:
        """Of all processes together."""
        assert isinstance(self.sampler, EpochSampler)
        assert self.batch_size is not None
        return self.batch_size * self.sampler.num_replicas

    def state_dict(self, batches: float = inf) -> dict[str, int]:
        """Samples that all processes were handed in this epoch, 0 at its end.

        Args:
            batches: Of an epoch, where they are not all.
        """
        done = self.taken >= min(len(self), batches)
        return {"samples": 0 if done else self.taken * self.samples_per_step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next epoch that is iterated after those samples.

        Where they are no whole number of today's batches, the last part is seen again.
        """
        if "samples" in state:
            samples = state["samples"]
        else:  # written before November 2026
            samples = state["taken"] % max(len(self), 1) * self.samples_per_step
        self.taken = self._skip = samples // self.samples_per_step

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        assert isinstance(self.sampler, EpochSampler)
        assert self.batch_size is not None
        self.taken = self._skip
        self.sampler.skip = self._skip * self.batch_size
        self._skip = 0
        for batch in super().__iter__():
            self.taken += 1
            yield batch


def collate(items: list[DepthItem]) -> DepthBatch:
    """Stack items; depth maps of several sizes are padded with invalid pixels."""
    rows = max(item["size"][0] for item in items)
    cols = max(item["size"][1] for item in items)
    batch = DepthBatch(
        image=torch.stack([item["image"] for item in items]),
        depth=torch.stack([_pad(item["depth"], rows, cols) for item in items]),
        valid=torch.stack([_pad(item["valid"], rows, cols) for item in items]),
        size=[item["size"] for item in items],
        path=[item["path"] for item in items],
        skipped=[item["skipped"] for item in items if item["skipped"]],
    )
    if all("intrinsics" in item for item in items):
        batch["intrinsics"] = torch.stack([item["intrinsics"] for item in items])
    if all("adapter" in item for item in items):
        batch["adapter"] = [item["adapter"] for item in items]
    return batch


def _named(item: DepthItem, adapter: str | None) -> DepthItem:
    if adapter is not None:
        item["adapter"] = adapter
    return item


def _pad(maps: Tensor, rows: int, cols: int) -> Tensor:
    pad = (0, cols - maps.shape[-1], 0, rows - maps.shape[-2])
    return torch.nn.functional.pad(maps, pad) if any(pad) else maps
