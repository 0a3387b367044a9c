"""How trainable tensors are trained: groups with rates, an optimiser, a schedule."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from models.errors import OptionError
from models.networks.interface import Network

ADAPTER = ".adapter."
SCHEDULE = "one cycle"


class Rate(NamedTuple):
    """What one group of parameters is trained with."""

    lr: float
    """Peak learning rate."""
    weight_decay: float


@dataclass(frozen=True)
class Optimisation:
    """How the trainable tensors are trained."""

    adapter_lr: float = 1e-3
    """Peak learning rate of the adapters."""
    head_lr: float = 1e-4
    """Peak learning rate of everything that is trained in full."""
    encoder_lr: float | None = None
    """Of what is trained in full in the encoder; null takes head_lr."""
    weight_decay: float = 0.01
    """On matrices trained in full; adapters have their own penalty."""
    warmup: float = 0.1
    """Fraction of all steps in which the rate rises; then it falls as a cosine."""
    variance_focus: float = 0.85
    """Lambda of the SiLog loss: 0.85 in BTS and ZoeDepth, 0.5 in Depth Anything V2."""
    optimizer: Callable[[Iterable[Any]], Optimizer] = AdamW
    """Any optimiser by its class path, such as torch.optim.SGD, with its own options
    (`--model.optimisation.optimizer.momentum 0.9`); rates and weight decay are those
    above."""

    def __post_init__(self) -> None:
        rates = (self.adapter_lr, self.head_lr, self.encoder_lr or 0.0)
        if min(rates) < 0 or self.weight_decay < 0:
            raise OptionError(
                f"learning rates {rates} and weight_decay {self.weight_decay} must not "
                "be negative"
            )
        if not 0 < self.warmup < 1 or not 0 <= self.variance_focus <= 1:
            raise OptionError(
                f"warmup {self.warmup} must lie between 0 and 1, and variance_focus "
                f"{self.variance_focus} from 0 to 1"
            )

    def rates(self) -> dict[str, Rate]:
        """Rate of each group: biases, norms and scales (`flat`) have no decay."""
        encoder_lr = self.head_lr if self.encoder_lr is None else self.encoder_lr
        return {
            "adapter": Rate(self.adapter_lr, 0.0),
            "head": Rate(self.head_lr, self.weight_decay),
            "head_flat": Rate(self.head_lr, 0.0),
            "encoder": Rate(encoder_lr, self.weight_decay),
            "encoder_flat": Rate(encoder_lr, 0.0),
        }

    def make(self, network: Network, steps: int) -> tuple[Optimizer, LRScheduler]:
        """The optimiser of a network's trainable tensors, and its schedule.

        Args:
            network: Asked which part each tensor belongs to.
            steps: Of the whole training.

        Raises:
            OptionError: If the optimiser cannot be made of these groups.
        """
        rates, groups = self.rates(), parameter_groups(network)
        settings = [
            {"params": parameters, "name": name, **rates[name]._asdict()}
            for name, parameters in groups.items()
        ]
        try:
            optimizer = self.optimizer(settings)
        except (TypeError, ValueError) as error:
            name = getattr(self.optimizer, "__name__", self.optimizer)
            raise OptionError(
                f"optimisation.optimizer {name} cannot take these parameters: {error}"
            ) from None
        schedule = OneCycleLR(
            optimizer,
            max_lr=[rates[name].lr for name in groups],
            total_steps=steps,
            pct_start=self.warmup,
            cycle_momentum=False,
        )
        return optimizer, schedule


def parameter_groups(network: Network) -> dict[str, list[nn.Parameter]]:
    """Trainable tensors by the name of their group; groups without any are left out."""
    groups: dict[str, list[nn.Parameter]] = {
        name: [] for name in Optimisation().rates()
    }
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            flat = "_flat" if parameter.ndim < 2 else ""
            whole = f"{network.part_of(name)}{flat}"
            groups["adapter" if ADAPTER in name else whole].append(parameter)
    return {name: parameters for name, parameters in groups.items() if parameters}


def kind_of(optimizer: Optimizer) -> dict[str, str]:
    """What a checkpoint says about how it was trained."""
    kind = type(optimizer)
    return {
        "optimizer": f"{kind.__module__}.{kind.__qualname__}",
        "schedule": SCHEDULE,
    }
