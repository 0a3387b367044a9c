"""How trainable tensors are trained: groups with rates, an optimiser, a schedule."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from models.errors import OptionError

ADAPTER = ".adapter."
SCHEDULE = "one cycle"
START_DIVISOR, END_DIVISOR = 25.0, 1e4


class Rate(NamedTuple):
    """What one group of parameters is trained with."""

    lr: float
    """Peak learning rate."""
    weight_decay: float


@dataclass(frozen=True)
class PlainOptimisation:
    """How the trainable tensors are trained, whatever the task."""

    adapter_lr: float = 1e-3
    """Peak learning rate of the adapters."""
    head_lr: float = 1e-4
    """Peak learning rate of everything that is trained in full."""
    weight_decay: float = 0.01
    """On matrices trained in full; adapters have their own penalty."""
    warmup: float = 0.1
    """Fraction of all steps in which the rate rises; then it falls as a cosine."""
    optimizer: Callable[[Iterable[Any]], Optimizer] = AdamW
    """Any optimiser by its class path, such as torch.optim.SGD, with its own options
    (`--model.optimisation.optimizer.momentum 0.9`); rates and weight decay are those
    above."""

    def __post_init__(self) -> None:
        rates = tuple(rate.lr for rate in self.rates().values())
        if not all(0 <= number < math.inf for number in (*rates, self.weight_decay)):
            raise OptionError(
                f"learning rates {rates} and weight_decay {self.weight_decay} must be "
                "finite, and not negative"
            )
        if not 0 < self.warmup < 1:
            raise OptionError(f"warmup {self.warmup} must lie between 0 and 1")

    def rates(self) -> dict[str, Rate]:
        """Rate of each group: biases, norms and scales (`flat`) have no decay."""
        return {
            "adapter": Rate(self.adapter_lr, 0.0),
            "head": Rate(self.head_lr, self.weight_decay),
            "head_flat": Rate(self.head_lr, 0.0),
        }

    def make(self, network: nn.Module, steps: int) -> tuple[Optimizer, "OneCycle"]:
        """The optimiser of a network's trainable tensors, and its schedule.

        Args:
            network: Asked which part each tensor belongs to.
            steps: Of the whole training.

        Raises:
            OptionError: If the optimiser cannot be made of these groups.
        """
        settings = self.settings(network, network.named_parameters())
        optimizer = self.made(settings)
        return optimizer, OneCycle(optimizer, steps, self.warmup)

    def settings(
        self, network: nn.Module, named: Iterable[tuple[str, nn.Parameter]]
    ) -> list[dict[str, Any]]:
        """The groups of an optimiser, each with its name, rate and decay.

        Args:
            network: Asked which part each tensor belongs to.
            named: Tensors by their names in it; those that want no gradient are left
                out.
        """
        rates, groups = self.rates(), parameter_groups(network, named)
        return [
            {"params": parameters, "name": name, **rates[name]._asdict()}
            for name, parameters in groups.items()
        ]

    def made(self, settings: list[dict[str, Any]]) -> Optimizer:
        """The optimiser of some groups.

        Raises:
            OptionError: If it cannot be made of them.
        """
        try:
            return self.optimizer(settings)
        except (TypeError, ValueError) as error:
            name = getattr(self.optimizer, "__name__", self.optimizer)
            raise OptionError(
                f"optimisation.optimizer {name} cannot take these parameters: {error}"
            ) from None

    def kind(self) -> dict[str, str]:
        """What a checkpoint says about how it was trained."""
        # Made for one matrix: what the options give may be a function.
        made = self.optimizer([nn.Parameter(torch.zeros(1, 1))])
        name = f"{type(made).__module__}.{type(made).__qualname__}"
        # What an optimiser's state cannot be read without, if it says so (Flora's).
        names: tuple[str, ...] = getattr(made, "state_options", ())
        if names:
            options = (f"{option}={made.defaults[option]}" for option in names)
            name += f"({', '.join(options)})"
        return {"optimizer": name, "schedule": SCHEDULE}

    def apply(self, optimizer: Optimizer, schedule: "OneCycle") -> list[str]:
        """`give_rates`, those of the groups of one network."""
        return give_rates(self.rates(), optimizer, schedule)


@dataclass(frozen=True)
class Optimisation(PlainOptimisation):
    """How the trainable tensors of a depth network are trained."""

    encoder_lr: float | None = None
    """Of what is trained in full in the encoder; null takes head_lr."""
    variance_focus: float = 0.85
    """Lambda of the SiLog loss: 0.85 in BTS and ZoeDepth, 0.5 in Depth Anything V2."""
    gradient_weight: float = 0.0
    """Of the multi-scale log-gradient loss beside SiLog, for sharper edges; dense truth
    only. 0 leaves it out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.variance_focus <= 1:
            raise OptionError(
                f"variance_focus {self.variance_focus} must lie from 0 to 1"
            )
        if not 0 <= self.gradient_weight < math.inf:
            raise OptionError(
                f"gradient_weight {self.gradient_weight} must be 0 or a finite number "
                "above it"
            )

    def rates(self) -> dict[str, Rate]:
        encoder_lr = self.head_lr if self.encoder_lr is None else self.encoder_lr
        return {
            **super().rates(),
            "encoder": Rate(encoder_lr, self.weight_decay),
            "encoder_flat": Rate(encoder_lr, 0.0),
        }


def give_rates(
    rates: Mapping[str, Rate], optimizer: Optimizer, schedule: "OneCycle"
) -> list[str]:
    """Give a restored optimiser other rates and decays, in place.

    Its state came from a checkpoint, and with it the rates of then.

    Returns:
        What is different from then, in words.
    """
    changes = []
    if schedule.steps != schedule.steps_before:
        changes.append(f"{schedule.steps} steps in all, not {schedule.steps_before}")
    for group in optimizer.param_groups:
        rate = rates[group["name"]]
        peak = group.get("max_lr", group["initial_lr"])
        before = Rate(peak, group["weight_decay"])
        changes += [
            f"{group['name']} {name} {new:g}, not {old:g}"
            for name, new, old in zip(Rate._fields, rate, before, strict=True)
            if new != old
        ]
        group["initial_lr"], group["weight_decay"] = rate.lr, rate.weight_decay
    schedule.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
    now = schedule.get_lr()
    for group, lr in zip(optimizer.param_groups, now, strict=True):
        group["lr"] = lr
    schedule._last_lr = now
    return changes


def scaled(
    rates: Mapping[str, Rate], optimizer: Optimizer, peak: float
) -> dict[str, Rate]:
    """The same rates times what makes `peak` the largest of an optimiser's groups.

    To three digits, so that they can be given as options.
    """
    largest = max(rates[group["name"]].lr for group in optimizer.param_groups)
    return {
        name: rate._replace(lr=float(f"{rate.lr * peak / largest:.3g}"))
        for name, rate in rates.items()
    }


class Regime(Protocol):
    """What a run that goes on has to know of how it is trained."""

    def kind(self) -> dict[str, str]:
        """What a checkpoint says about it."""

    def rates(self) -> dict[str, Rate]:
        """Of each group of parameters, also of those that a network has none of."""

    def apply(self, optimizer: Optimizer, schedule: "OneCycle") -> list[str]:
        """Give a restored optimiser its rates; what is different, in words."""


class OneCycle(LRScheduler):
    """A rise to each group's own rate and a fall to nearly nothing, both as cosines.

    Smith and Topin, Super-Convergence, 2017, as in torch's `OneCycleLR`: from 1 / 25 of
    the rate to 1 / 10,000 of that. A function of the step and of all steps alone, so
    that a run can go on with more or fewer steps than it was begun with: its rates
    then follow the curve over the new length from where it stands.

    Args:
        optimizer: Its groups' rates are the peaks.
        steps: Of the whole training; later ones have the last rate.
        warmup: Fraction of the steps in which the rate rises.
    """

    def __init__(self, optimizer: Optimizer, steps: int, warmup: float) -> None:
        self.steps, self.warmup = steps, warmup
        self.steps_before: int = steps
        """Of the run whose state was loaded, or its own."""
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        """Part of the peak rate at a step, from 0."""
        top, end = self.warmup * self.steps - 1, self.steps - 1
        if top > 0 and step <= top:
            return _cosine(1 / START_DIVISOR, 1.0, step / top)
        done = (step - top) / (end - top) if end > top else 1.0
        return _cosine(1.0, 1 / (START_DIVISOR * END_DIVISOR), min(done, 1.0))

    def get_lr(self) -> list[float | Tensor]:
        factor = self.factor(self.last_epoch)
        return [rate * factor for rate in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """The step alone: what else there is belongs to the run that goes on."""
        return {"last_epoch": self.last_epoch, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.last_epoch = state_dict["last_epoch"]
        # torch's own, in checkpoints up to November 2026, says it by another name.
        self.steps_before = state_dict.get("steps") or state_dict["total_steps"]


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * part))


def parameter_groups(
    network: nn.Module, named: Iterable[tuple[str, nn.Parameter]]
) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Trainable tensors with their names by group; groups without any are left out."""
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {
        name: [] for name in Optimisation().rates()
    }
    for name, parameter in named:
        if parameter.requires_grad:
            flat = "_flat" if parameter.ndim < 2 else ""
            whole = f"{part_of(network, name)}{flat}"
            groups["adapter" if ADAPTER in name else whole].append((name, parameter))
    return {name: parameters for name, parameters in groups.items() if parameters}


def part_of(network: nn.Module, name: str) -> str:
    """The part that a parameter belongs to; a network that has none is all `head`."""
    own: Callable[[str], str] | None = getattr(network, "part_of", None)
    return "head" if own is None else own(name)
