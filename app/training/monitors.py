"""Whether what checkpoints and early stopping go by is something that is measured."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from models.errors import OptionError

TRAINING = "train/"
"""What training logs of itself, which the check before it cannot know."""


class Monitors(Callback):
    """Refuses an unknown score before the first step.

    Lightning does after the first epoch alone (seen in 2.6). Its sanity check gives the
    names; without one, nothing is refused here.
    """

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        known = sorted(trainer.callback_metrics)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if not isinstance(callback, (ModelCheckpoint, EarlyStopping)):
                continue
            name = callback.monitor
            if name is None or name in known or name.startswith(TRAINING):
                continue
            kind = type(callback).__name__
            raise OptionError(
                f"{kind} goes by {name!r}, which no validation gives; give monitor as "
                f"one of {', '.join(known)}"
            )
