"""What a training step of each contestant costs, beside the frozen network's own."""

import operator
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.comparison.cell import Cell, Settings, build
from benchmarks.comparison.methods import CONTESTANTS
from benchmarks.comparison.plan import Plan, has_rank
from benchmarks.comparison.tasks import TASKS
from benchmarks.step_runner import held_storages
from benchmarks.stopwatch import measure
from models.adapters import AdapterConfig, orthogonality
from models.losses import silog
from models.optimisation import Optimisation

FLOOR = "frozen"
MIB = 2**20
COPIES = 3
"""Of every trained number: its gradient and the optimiser's two moments."""


def measure_costs(
    plan: Plan, settings: Settings, rounds: int
) -> dict[str, dict[str, float]]:
    """Milliseconds and MiB of a step, as medians, and as ratios to the floor.

    A step is forward, loss, penalty, backward and AdamW on one batch of random
    numbers. The floor is the frozen network: forward, loss, and backward to the class
    token beneath all blocks. Steps are interleaved, in a random order per round, in
    one thread. Memory is what training needs beside code: weights, what autograd holds
    for backward, gradients and AdamW's moments.
    """
    torch.set_num_threads(1)
    on_cuda = settings.accelerator != "cpu"
    device = torch.device("cuda" if on_cuda else "cpu")
    torch.manual_seed(0)
    image = torch.randn(settings.batch_size, 3, *settings.image_size, device=device)
    target = 1 + torch.rand(settings.batch_size, 1, *settings.image_size, device=device)
    focus = Optimisation().variance_focus

    def forward_of(
        network: nn.Module, config: AdapterConfig | None
    ) -> Callable[[], torch.Tensor]:
        def forward() -> torch.Tensor:
            loss = silog(network(image), target, target > 0, focus)
            penalty = None if config is None else orthogonality(network, config)
            return loss if penalty is None else loss + penalty

        return forward

    steps: dict[str, Callable[[], None]] = {}
    memory: dict[str, float] = {}
    for name in [FLOOR, *plan.trained()]:
        network, config = contestant(plan, settings, name)
        network.to(device)
        trained = [p for p in network.parameters() if p.requires_grad]
        forward = forward_of(network, config)
        copies = 0 if name == FLOOR else COPIES * sum(p.nbytes for p in trained)
        held = held_storages(forward)
        own = {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
            for t in [*network.parameters(), *network.buffers()]
        }
        needed = sum((held | own).values()) + copies
        memory[name] = needed / MIB
        steps[name] = step_of(forward, [] if name == FLOOR else trained)
    times = measure(steps, on_cuda=on_cuda, rounds=rounds)
    ratios = {
        name: [*map(operator.truediv, times[name], times[FLOOR])] for name in steps
    }
    return {
        name: {
            "ms": statistics.median(times[name]),
            "times_floor": statistics.median(ratios[name]),
            "mib": memory[name],
            "memory_times_floor": memory[name] / memory[FLOOR],
        }
        for name in steps
    }


def contestant(
    plan: Plan, settings: Settings, name: str
) -> tuple[nn.Module, AdapterConfig | None]:
    """A contestant's network and options, at the plan's first budget."""
    task = TASKS[plan.tasks[0]]
    method = "unadapted" if name == FLOOR else name
    share = plan.shares[0] if has_rank(method) else None
    cell = Cell(task.name, method, plan.tuned_at, 0, 1e-3, share)
    module, _ = build(cell, settings, CONTESTANTS[method], task)
    if name == FLOOR:
        module.network.requires_grad_(False)
        module.network.get_parameter("pretrained.cls_token").requires_grad_()
    return module.network, module.record.adapter


def step_of(
    forward: Callable[[], torch.Tensor], trained: list[nn.Parameter]
) -> Callable[[], None]:
    """One training step; without `trained`, its gradients are all there is."""
    optimizer: Any = torch.optim.AdamW(trained, lr=1e-6) if trained else None

    def step() -> None:
        if optimizer is not None:
            optimizer.zero_grad()
        torch.autograd.backward(forward())
        if optimizer is not None:
            optimizer.step()

    return step
