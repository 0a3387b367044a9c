"""What the data of every task share: loaders that go on where a run stopped."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from datamodules.errors import DataError
from datamodules.loading import EpochSampler, ResumableLoader, ShareSampler

SEEDS = 2**32
"""How many there are, as NumPy takes them."""


class TaskDataModule(LightningDataModule):
    """Loaders over items, whose order is a function of seed and epoch.

    Args:
        batch_size: Items per process and step.
        num_workers: Processes that load items; 0 loads in the main one.
        seed: Order of the training items.

    Raises:
        DataError: If one of them cannot be.
    """

    gives: ClassVar[str]
    """What its batches are of; a module says what it `takes`."""

    def __init__(self, batch_size: int, num_workers: int, seed: int) -> None:
        super().__init__()
        if batch_size < 1 or num_workers < 0:
            raise DataError(
                f"batch_size {batch_size} must be at least 1 and num_workers "
                f"{num_workers} at least 0"
            )
        if not 0 <= seed < SEEDS:
            raise DataError(f"seed {seed} must be a whole number from 0 to {SEEDS - 1}")
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self._train_loader: ResumableLoader | None = None
        self._resume_at: dict[str, int] | None = None

    @property
    def collate(self) -> Callable[[list[Any]], Any]:
        """What makes a batch of items; sent to the processes that load."""
        raise NotImplementedError

    def resumable(self, items: Dataset[Any], sampler: EpochSampler) -> ResumableLoader:
        """The loader of the training items, at the place where a run goes on."""
        self._train_loader = ResumableLoader(
            items,
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
        if self._train_loader is None:
            return {}
        batches = getattr(self.trainer, "num_training_batches", len(self._train_loader))
        return self._train_loader.state_dict(batches)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._resume_at = state_dict or None

    def in_order(self, items: Dataset[Any], batch_size: int) -> DataLoader[Any]:
        """A loader of every item once, in order, each process its share."""
        sampler = ShareSampler(items, *self._replicas(), shuffle=False)
        loading = self._loading()
        return DataLoader(items, batch_size=batch_size, sampler=sampler, **loading)

    def check_count(self, split: str, count: int, what: str) -> None:
        """Refuse a split that is empty, or too small for all processes.

        Raises:
            DataError: Naming it.
        """
        if count == 0:
            raise DataError(f"the {split} split has no {what}")
        processes, _ = self._replicas()
        if count < processes:
            # A process without any would not join the others' sums of scores.
            raise DataError(
                f"the {split} split has {count} {what} for {processes} "
                f"processes; use fewer devices, or hold out more {what}"
            )

    def _replicas(self) -> tuple[int, int]:
        if self.trainer is None:
            return 1, 0
        return self.trainer.world_size, self.trainer.global_rank

    def _loading(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "collate_fn": self.collate,
            "pin_memory": torch.cuda.is_available(),
            "persistent_workers": self.num_workers > 0,
        }
