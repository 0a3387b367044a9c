"""A search for the learning rates, before the first step."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateFinder

from models.errors import OptionError


class RateFinder(LearningRateFinder):
    """Lightning's learning rate finder, over rates that adapters may have.

    The rate grows from step to step, all groups having the same one; where the loss
    fell fastest (Smith, Cyclical Learning Rates, 2017, section 3.3) is the peak rate of
    the run, of the fastest group; the others keep their ratio to it. Network, data and
    random numbers are then as they were. Lightning's own bounds of 1e-8 to 1 chose
    2.5e-6 for the demo, with which nothing is learnt, and these 1.7e-3 (2026-11-28).

    Args:
        steps: Of the search; 0 leaves it out and trains with the recipe's rates. 60 to
            100 tell something.
        min_lr: Rate of the first step.
        max_lr: Rate of the last one, if the loss has not become four times as high
            before.
    """

    def __init__(
        self, steps: int = 0, min_lr: float = 1e-5, max_lr: float = 0.3
    ) -> None:
        if steps < 0 or not 0 < min_lr < max_lr < float("inf"):
            raise OptionError(
                f"rate_finder steps {steps} must be 0 or more, and min_lr {min_lr:g} "
                f"above 0 and below max_lr {max_lr:g}"
            )
        super().__init__(min_lr, max_lr, steps)
        self.steps = steps

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.steps:
            return
        if trainer.ckpt_path is not None:
            raise OptionError(
                "--rate_finder.steps is for the beginning of a run; without it, one "
                "that goes on follows its options"
            )
        in_all = trainer.estimated_stepping_batches
        if in_all < self.steps:
            raise OptionError(
                f"--rate_finder.steps {self.steps} is more than the {in_all:g} steps "
                "of the run, with which the search would end"
            )
        self.lr_find(trainer, pl_module)
        if self.optimal_lr is None or self.optimal_lr.suggestion() is None:
            raise OptionError(
                f"--rate_finder.steps {self.steps} are too few to tell a rate; give 60"
            )
