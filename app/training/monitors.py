"""Whether what checkpoints and early stopping go by is something that is measured."""

from typing import cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from models.errors import OptionError
from models.task_module import TaskModule

TRAINING = "train/"
"""What training logs of itself, which the check before it cannot know."""


class Monitors(Callback):
    """Refuses an unknown score, or the worst of a known one, before the first step.

    Lightning refuses the one after the first epoch and takes the other, `min` being its
    default (seen in 2.6). Its sanity check gives the names; without one, nothing is
    refused here.
    """

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        known = sorted(trainer.callback_metrics)
        rises = cast(TaskModule, pl_module).rises
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if not isinstance(callback, (ModelCheckpoint, EarlyStopping)):
                continue
            name, kind = callback.monitor, type(callback).__name__
            if name is None or name.startswith(TRAINING):
                continue
            if name not in known:
                raise OptionError(
                    f"{kind} goes by {name!r}, which no validation gives; give monitor "
                    f"as one of {', '.join(known)}"
                )
            better = "max" if name.rpartition("/")[2] in rises else "min"
            if callback.mode != better:
                raise OptionError(
                    f"{kind} takes the {callback.mode} of {name}, which is its worst; "
                    f"give mode as {better}"
                )
