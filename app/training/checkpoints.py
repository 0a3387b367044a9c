"""Checkpoints within an epoch, by the clock."""

from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from models.errors import OptionError

STEPS = 8
"""Processes agree on the time once in so many steps: each time costs a message."""


class Recovery(ModelCheckpoint):
    """Brings `last.ckpt` up to date within an epoch, for a run that is killed.

    It is the file that every validation writes, too, so that there is one to go on
    from: at the sample at which it was written.

    Args:
        minutes: Of training between two; 0 leaves it to validation.
        dirpath: Folder; null is that of the other checkpoints.
    """

    def __init__(self, minutes: float = 10.0, dirpath: str | None = None) -> None:
        if not 0 <= minutes < float("inf"):
            raise OptionError(f"recovery.minutes {minutes} must be 0 or more")
        never = timedelta(days=36500)
        super().__init__(
            dirpath,
            filename="last",
            train_time_interval=timedelta(minutes=minutes) if minutes else never,
            enable_version_counter=False,
        )

    @property
    def state_key(self) -> str:
        """One for every interval, which a resumed run may change."""
        return type(self).__qualname__

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        # Between two steps of the optimiser there are gradients, which no file has.
        if (batch_idx + 1) % (STEPS * trainer.accumulate_grad_batches) == 0:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
