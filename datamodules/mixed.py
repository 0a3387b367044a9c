"""Several data sets in one training, each for an adapter of its own."""

import math

from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader

from datamodules.base import DepthDataModule, Split
from datamodules.batch import DepthBatch, DepthItem, Frames
from datamodules.errors import DataError
from datamodules.loading import ResumableLoader
from datamodules.mixing import (
    MixedSampler,
    MixedSet,
    RepeatingMixedSampler,
    Shuffled,
    counts_of,
)
from datamodules.protocols import Protocol
from datamodules.sizes import Size
from datamodules.transforms import Augment


class MixedDataModule(DepthDataModule):
    """Sources by name: batches have frames of all of them, each with its share.

    A source is trained on with its own augmentation, order and seed, and scored apart,
    by its own protocol and in its own batches. An epoch has as many samples as all
    sources have training frames.

    Args:
        sources: Name to data module, of any kind; the adapter of that name is trained
            on it. All have one size in training (`augment.crop` or `image_size`).
        shares: Name to the part of each batch that is the source's, above 0; they are
            divided by their sum. Null takes each by its number of frames.
        batch_size: Frames of all sources together, per process and step.
        num_workers: Processes that load training frames; 0 loads in the main one.
    """

    gives = "pictures of several sources"

    def __init__(
        self,
        sources: dict[str, DepthDataModule],
        shares: dict[str, float] | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
    ) -> None:
        _check(sources, shares)
        super().__init__(
            _trained_sizes(next(iter(sources.values())))[0],
            max(source.max_depth for source in sources.values()),
            batch_size,
            num_workers,
            seed=0,
            augment=Augment(),
        )
        self.sources, self.shares = sources, shares
        for name, source in sources.items():
            source.adapter = name

    @property
    def parts(self) -> dict[str, DepthDataModule]:
        return self.sources

    def source_of(self, batch: DepthBatch) -> DepthDataModule:
        return self.sources[batch["adapter"][0]]

    @property
    def protocol(self) -> Protocol:
        raise DataError("mixed data have a protocol for each source; ask the source")

    def frames(self, split: Split) -> Frames:
        raise DataError("mixed data have frames of each source; ask the source")

    def prepare_data(self) -> None:
        for source in self.sources.values():
            source.prepare_data()

    def setup(self, stage: str) -> None:
        for name, source in self.sources.items():
            source.trainer = self.trainer
            try:
                source.setup(stage)
            except DataError as error:
                raise DataError(f"data.sources {name}: {error}") from None
            self.image_input = source.image_input

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled batches; the last incomplete one is dropped if there is another."""
        sets = {name: source.train_set() for name, source in self.sources.items()}
        shares = self.shares or {name: float(len(sets[name])) for name in sets}
        shuffled = [
            Shuffled(len(sets[name]), shares[name], source.seed)
            for name, source in self.sources.items()
        ]
        repeating = getattr(self.trainer, "overfit_batches", 0)
        kind = RepeatingMixedSampler if repeating else MixedSampler
        sampler = kind(shuffled, self.batch_size, *self._replicas())
        counts = counts_of([s.share for s in shuffled], sampler.total_size)
        for (name, frames), n in zip(sets.items(), counts, strict=True):
            if n == 0:
                raise DataError(
                    f"data.shares {name} {shares[name]:g} gives it none of the "
                    f"{sampler.total_size} samples of an epoch; give it more"
                )
            rank_zero_info(
                f"{name}: {n} of {sampler.total_size} samples of an epoch, from "
                f"{len(frames)} frames"
            )
        return self.resumable(MixedSet(list(sets.values())), sampler)

    def val_dataloader(self) -> list[DataLoader[DepthItem]]:  # type: ignore[override]
        """A loader for each source: every frame once, in order."""
        return [source.val_dataloader() for source in self.sources.values()]

    def test_dataloader(self) -> list[DataLoader[DepthItem]]:  # type: ignore[override]
        """Likewise."""
        return [source.test_dataloader() for source in self.sources.values()]


def _trained_sizes(source: DepthDataModule) -> list[Size]:
    crop = source.augment.crop
    return source.frame_sizes if crop is None else [crop]


def _check(
    sources: dict[str, DepthDataModule], shares: dict[str, float] | None
) -> None:
    """Refuse sources that cannot stand in one batch.

    Raises:
        DataError: Naming what does not fit.
    """
    if not sources:
        raise DataError("data.sources names no data; give each adapter its own")
    for name, source in sources.items():
        if isinstance(source, MixedDataModule):
            raise DataError(f"data.sources {name} is mixed itself; name its sources")
    sizes = {name: _trained_sizes(source) for name, source in sources.items()}
    if len({tuple(size) for own in sizes.values() for size in own}) > 1:
        told = ", ".join(
            f"{name} {' and '.join(str([*size]) for size in own)}"
            for name, own in sizes.items()
        )
        raise DataError(
            f"one batch has images of one size, but the sources train at {told}; give "
            "them the same image_size or augment.crop"
        )
    if shares is None:
        return
    if shares.keys() != sources.keys():
        raise DataError(
            f"data.shares are of {', '.join(shares) or 'nothing'}, but the sources are "
            f"{', '.join(sources)}; give each its share, or none"
        )
    for name, share in shares.items():
        if not 0 < share < math.inf:
            raise DataError(
                f"data.shares {name} {share:g} must be above 0; leave a source out in "
                "place of a share of 0"
            )
