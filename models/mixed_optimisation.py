"""One optimiser for several adapters, each with the rates of its own recipe."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from models.depth_bank import DepthBank
from models.errors import OptionError
from models.optimisation import OneCycle, Optimisation, Rate, give_rates
from models.router import Router

ROUTER = "router"


@dataclass(frozen=True)
class MixedOptimisation:
    """How the adapters of a mixed run and their router are trained.

    Rates, decay and loss are each adapter's own. The optimiser and its schedule are
    one for all, so that what the recipes say of them has to be the same.
    """

    each: Mapping[str, Optimisation]
    """By adapter."""
    router_lr: float

    def __post_init__(self) -> None:
        if not self.router_lr > 0:
            raise OptionError(f"model.router_lr {self.router_lr:g} must be above 0")
        kinds = {name: _shared(own) for name, own in self.each.items()}
        first, *others = kinds
        for name in others:
            if kinds[name] != kinds[first]:
                raise OptionError(
                    f"optimisation of the adapters {first} and {name} differs in its "
                    "optimizer or warmup, but a mixed run has one for all; give both "
                    "the same"
                )

    @property
    def shared(self) -> Optimisation:
        """Whose optimiser, options and schedule are those of all."""
        return next(iter(self.each.values()))

    def make(
        self, bank: DepthBank, router: Router | None, steps: int
    ) -> tuple[Optimizer, OneCycle]:
        """The optimiser of all that is trained, and its schedule.

        Raises:
            OptionError: If it cannot be made of these groups.
        """
        settings: list[dict[str, Any]] = []
        for name, own in self.each.items():
            parameters = bank.adapters.roster.find(name).named_parameters()
            for group in own.settings(bank.network, parameters):
                group["name"] = f"{name}/{group['name']}"
                group["params"] = [(f"{name}/{n}", p) for n, p in group["params"]]
                settings.append(group)
        if router is not None:
            parameters = ((f"{ROUTER}/{n}", p) for n, p in router.named_parameters())
            rate = self.rates()[ROUTER]
            settings.append(
                {"params": list(parameters), "name": ROUTER, **rate._asdict()}
            )
        optimizer = self.shared.made(settings)
        return optimizer, OneCycle(optimizer, steps, self.shared.warmup)

    def rates(self) -> dict[str, Rate]:
        """Of each group of each adapter, and of the router."""
        found = {
            f"{name}/{group}": rate
            for name, own in self.each.items()
            for group, rate in own.rates().items()
        }
        return {**found, ROUTER: Rate(self.router_lr, 0.0)}

    def kind(self) -> dict[str, str]:
        """What a checkpoint says about how it was trained."""
        return self.shared.kind()

    def apply(self, optimizer: Optimizer, schedule: OneCycle) -> list[str]:
        """`give_rates`, those of all groups."""
        return give_rates(self.rates(), optimizer, schedule)


def _shared(own: Optimisation) -> tuple[object, ...]:
    """What is of the optimiser and its schedule: the same for equal options."""
    made = own.optimizer([nn.Parameter(torch.zeros(1, 1))])
    return type(made), made.defaults, own.warmup
