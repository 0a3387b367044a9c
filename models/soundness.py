"""What training and scoring refuse to go on with, each in one line."""

import math
from collections.abc import Iterable

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from models.artefacts.files import not_finite
from models.errors import OptionError

ROUNDING = ("16-true", "bf16-true", "transformer-engine", "transformer-engine-float16")
"""Precisions of Lightning that convert batches: truth would have 8 or 11 bits."""
INSTEAD = "lower the learning rates, or use --trainer.precision 32-true or bf16-mixed"


def check_precision(trainer: Trainer) -> None:
    """Refuse a precision that would round the truth and the steps of adapters.

    Raises:
        OptionError: Naming the one to use.
    """
    given = str(trainer.precision)
    if given in ROUNDING:
        raise OptionError(
            f"trainer.precision {given} would round the truth and the small steps of "
            "adapters to half precision; use bf16-mixed, 16-mixed or 32-true"
        )


def steps_of(trainer: Trainer) -> int:
    """How many steps a training has.

    Raises:
        OptionError: If there are none, or no end is set, which a schedule needs.
    """
    steps = trainer.estimated_stepping_batches
    if math.isinf(steps):
        raise OptionError(
            "rates follow one cycle over all steps, so their number must be known: set "
            "trainer.max_epochs or trainer.max_steps; trainer.max_time may stop earlier"
        )
    # Of no epochs Lightning estimates the steps of one.
    if steps < 1 or trainer.max_epochs == 0:
        raise OptionError(
            "there is no step to train: trainer.max_epochs, max_steps or "
            "limit_train_batches is 0; `validate` and `test` score without training"
        )
    return int(steps)


def broken(depth: Tensor) -> Tensor:
    """How many predictions (B, 1, h, w) are not finite everywhere; a scalar."""
    return (~torch.isfinite(depth).flatten(1).all(1)).sum()


def check_predictions(broken: int, images: int, stage: str) -> None:
    """Refuse to score what is not finite.

    Clamped to the protocol's range, as the literature's code does, NaN would score as
    the nearest depth: AbsRel 1.0, often better than before the first step.

    Raises:
        OptionError: If there was any.
    """
    if broken:
        raise OptionError(
            f"the network's prediction is not finite on {broken} of {images} {stage} "
            f"images: training diverged, or a precision overflows; {INSTEAD}"
        )


def check_weights(parameters: Iterable[tuple[str, nn.Parameter]], step: int) -> None:
    """Refuse to go on with, and to save, weights that are not finite.

    Raises:
        OptionError: Naming them.
    """
    trained = {name: p.detach() for name, p in parameters if p.requires_grad}
    if names := not_finite(trained):
        raise OptionError(
            f"training diverged before step {step}: {names} are not finite; {INSTEAD}"
        )
