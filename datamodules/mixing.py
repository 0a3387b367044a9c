"""Several sources in one stream of samples, each with its share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, DistributedSampler, SequentialSampler

from datamodules.batch import DepthItem, Frame
from datamodules.loading import EpochSampler, TrainDataset


@dataclass(frozen=True)
class Shuffled:
    """A source's frames, each once in its own epoch, in an order of that epoch."""

    length: int
    share: float
    """Of all samples."""
    seed: int

    def order(self, epoch: int) -> list[int]:
        """Places of an epoch: those that the source's own run would have."""
        generator = torch.Generator().manual_seed(self.seed + epoch)
        return cast(
            list[int], torch.randperm(self.length, generator=generator).tolist()
        )


def spread(counts: Sequence[int]) -> NDArray[np.int64]:
    """Which source each sample of an epoch is from, every source evenly spread.

    The j-th of n samples stands at (j + 1/2) / n of the epoch, so that any stretch has
    each share to within one sample; equal places go by the order of the sources.
    """
    places = [(np.arange(n) + 0.5) / n for n in counts]
    sources = np.repeat(np.arange(len(counts)), counts)
    return sources[np.argsort(np.concatenate(places), kind="stable")]


def counts_of(shares: Sequence[float], length: int) -> list[int]:
    """How many of `length` samples are each source's; by the largest remainders."""
    exact = np.array(shares) / sum(shares) * length
    counts = np.floor(exact).astype(int)
    missing = length - int(counts.sum())
    for i in np.argsort(counts - exact, kind="stable")[:missing]:
        counts[i] += 1
    return [int(n) for n in counts]


class MixedSampler(EpochSampler):
    """(source, epoch, index) triples, a function of the sources and the epoch alone.

    An epoch has as many samples as the sources have frames. A source whose share is
    larger than its part of the frames begins its own next epoch within; no frame of a
    source comes again before all its others came.

    Args:
        sources: Frames and share of each.
        batch_size: Per process: each takes whole batches from the stream, since every
            n-th sample of it may be of one source alone.
        replicas: Number of processes.
        rank: This one.
    """

    def __init__(
        self, sources: Sequence[Shuffled], batch_size: int, replicas: int, rank: int
    ) -> None:
        self.sources, self.batch = sources, batch_size * replicas
        frames = range(sum(source.length for source in sources))
        DistributedSampler.__init__(
            self, cast(Dataset[Frame], frames), replicas, rank, shuffle=False
        )

    def __iter__(self) -> Iterator[tuple[int, int, int]]:  # type: ignore[override]
        skip, self.skip = self.skip, 0
        return islice(self._share(), skip, None)

    def _share(self) -> Iterator[tuple[int, int, int]]:
        """Of this process; of what is left at the end each has an equal part."""
        samples = self._samples()
        for start in range(0, len(samples), self.batch):
            batch = samples[start : start + self.batch]
            size = len(batch) // self.num_replicas
            yield from batch[self.rank * size : (self.rank + 1) * size]

    def _samples(self) -> list[tuple[int, int, int]]:
        """Of all processes."""
        counts = counts_of([source.share for source in self.sources], self.total_size)
        streams = [
            islice(_stream(source, self.epoch * n), n)
            for source, n in zip(self.sources, counts, strict=True)
        ]
        return [(int(s), *next(streams[s])) for s in spread(counts)]


class RepeatingMixedSampler(MixedSampler, SequentialSampler):  # type: ignore[misc]
    """The same samples in every epoch, for `trainer.overfit_batches`."""

    def set_epoch(self, epoch: int) -> None:
        """Stay where it is."""


class MixedSet(Dataset[DepthItem]):
    """Training frames of several sources, addressed by (source, epoch, index)."""

    def __init__(self, sets: Sequence[TrainDataset]) -> None:
        self.sets = sets

    def __len__(self) -> int:
        return sum(map(len, self.sets))

    def __getitem__(self, key: tuple[int, int, int]) -> DepthItem:
        source, epoch, index = key
        return self.sets[source][epoch, index]


def _stream(source: Shuffled, start: int) -> Iterator[tuple[int, int]]:
    """(epoch, index) of a source without end, from its `start`-th sample."""
    epoch, place = divmod(start, source.length)
    while True:
        for index in source.order(epoch)[place:]:
            yield epoch, index
        epoch, place = epoch + 1, 0
