"""From the losses of a mixed batch to each adapter's gradient of a step.

The gradient of an adapter is that of the mean, by numbers of examples, of its losses
over all batches that a step accumulates and over all processes. So a loss is taken
times its number of examples, gradients add up, and before the step they are divided by
the number of examples in all, which is then known.
"""

from collections.abc import Mapping, Sequence

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from models.adapters.each import clip_each
from models.depth_bank import DepthBank
from models.router import Router


class MixedStep:
    """What has to be known from the batches of a step until it is taken.

    Args:
        bank: Whose adapters are trained.
        router: Trained beside them, if there is one; counts as one of them.
    """

    def __init__(self, bank: DepthBank, router: Router | None) -> None:
        self.bank, self.router = bank, router
        self.names: Sequence[str] = ()
        """The adapters of the last batch's examples."""
        self._counts: dict[str, int] = {}

    def add(
        self,
        losses: Mapping[str, Tensor],
        counts: Mapping[str, int],
        names: Sequence[str],
        processes: int,
    ) -> Tensor:
        """What to go backward from for a batch.

        Args:
            losses: Mean loss of each that has examples in it.
            counts: Their numbers of examples.
            names: The adapter of each example.
            processes: That train together.
        """
        self.names = names
        for name, count in counts.items():
            self._counts[name] = self._counts.get(name, 0) + count
        total = torch.stack([losses[name] * counts[name] for name in losses]).sum()
        if processes > 1:
            # Processes wait for the gradients of all parameters: those that have none
            # here may have some there.
            for name in self.bank.names:
                if name not in losses:
                    total = total + 0.0 * _sum(self._trained(name))
        return total

    def average(self, trainer: Trainer) -> None:
        """Divide each one's gradient by its examples; without any it has none.

        The trainer divided losses by the number of accumulated batches, and processes
        took the mean.
        """
        groups = {name: self._trained(name) for name in self.bank.names}
        counted = [self._counts.get(name, 0) for name in groups]
        if trainer.world_size > 1:
            device = trainer.strategy.root_device
            mine = torch.tensor(counted, device=device)
            counted = trainer.strategy.reduce(mine, reduce_op="sum").tolist()
        times = trainer.accumulate_grad_batches * trainer.world_size
        parameters = list(groups.values())
        if self.router is not None:
            parameters.append(list(self.router.parameters()))
            counted.append(sum(counted))
        for own, count in zip(parameters, counted, strict=True):
            _scale(own, times / count if count else 0.0)
        self._counts = {}

    def clip(self, max_norm: float) -> None:
        """Each one's gradient to a norm of its own, at most."""
        clip_each(self.bank.adapters, max_norm)
        if self.router is not None:
            nn.utils.clip_grad_norm_(self.router.parameters(), max_norm)

    def _trained(self, name: str) -> list[nn.Parameter]:
        member = self.bank.adapters.roster.find(name)
        return [p for p in member.parameters() if p.requires_grad]


def _scale(parameters: list[nn.Parameter], factor: float) -> None:
    if not factor:
        for parameter in parameters:
            parameter.grad = None
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    if gradients:
        torch._foreach_mul_(gradients, factor)


def _sum(parameters: list[nn.Parameter]) -> Tensor:
    return torch.stack([parameter.sum() for parameter in parameters]).sum()
