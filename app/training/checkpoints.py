"""`last.ckpt`, where training stands: by the clock, after validations, at the end."""

from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from models.errors import OptionError

STEPS = 8
"""Processes agree on the time once in so many steps: each time costs a message."""


class Recovery(ModelCheckpoint):
    """Brings `last.ckpt` up to date, so that there is one to go on from.

    Within an epoch by the clock, at the sample at which it was written; after every
    validation, where Lightning writes it only if the score is the best so far (seen in
    2.6); and where the run ends, also between two validations.

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
        self._written_at = 0
        """Step of the newest `last.ckpt` that was written here."""

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
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        steps = trainer.max_steps
        ends = trainer.should_stop or 0 <= steps <= trainer.global_step
        if ends and not trainer.is_last_batch:
            # Later, the epoch that is broken off here would count as done.
            self._write(trainer)
        elif (batch_idx + 1) % (STEPS * trainer.accumulate_grad_batches) == 0:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._should_save_on_train_epoch_end(trainer):
            self._write(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        swa = StochasticWeightAveraging
        averaged = any(isinstance(c, swa) for c in trainer.callbacks)  # type: ignore[attr-defined]
        if averaged:
            rank_zero_info(f"last.ckpt has the weights that {swa.__name__} averaged")
        self._write(trainer, again=averaged)

    def _write(self, trainer: Trainer, *, again: bool = False) -> None:
        """Write `last.ckpt` for those that write one, unless they just have.

        Args:
            trainer: Of the run.
            again: Also then, for other weights than at that step.
        """
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if not fitting:
            return
        found = trainer.checkpoint_callbacks
        for one in found:
            if not isinstance(one, ModelCheckpoint) or not one.save_last:
                continue
            written_at = max(self._written_at, one._last_global_step_saved)
            if again or written_at < trainer.global_step:
                path = one.format_checkpoint_name({}, one.CHECKPOINT_NAME_LAST)
                trainer.save_checkpoint(path, one.save_weights_only)
                # Lightning writes one more at the end, unless it knows of any.
                one.last_model_path = one._last_checkpoint_saved = path
        self._written_at = trainer.global_step
