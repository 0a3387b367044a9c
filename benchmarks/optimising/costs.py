"""What a training step of the packaged network takes with each optimiser."""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.comparison.cell import Settings
from benchmarks.optimising.contestants import CONTESTANTS
from benchmarks.optimising.counting import Alive, trained_whole
from benchmarks.optimising.training import TASK, held_tensors
from models import DepthAnythingModule
from models.losses import silog
from models.optimisation import Optimisation

DROPPED_ROUNDS = 3
LR = 1e-6
"""Small enough that all train alike."""
FIRST = "adamw"


def measure_costs(
    names: Sequence[str], settings: Settings, rounds: int
) -> dict[str, dict[str, float]]:
    """Milliseconds and MiB by optimiser; times are medians of processor time.

    One network each, one thread; forward, loss and backward are timed apart from the
    optimiser's step, all in an order of its own each round. Ratios are to AdamW of the
    same round. Memory is counted storage by storage on a step of its own.
    """
    torch.set_num_threads(1)
    image = torch.randn(settings.batch_size, 3, *settings.image_size)
    target = 1 + torch.rand(settings.batch_size, 1, *settings.image_size)
    steps: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {}
    found: dict[str, dict[str, float]] = {}
    for name in names:
        made = DepthAnythingModule(
            TASK.max_depth, settings.image_size, settings.size, weights=settings.weights
        )
        plain: Any = made.network
        network: Any = trained_whole(plain)
        make: Any = CONTESTANTS[name].make
        optimisation = Optimisation(head_lr=LR, optimizer=make)
        optimizer, _ = optimisation.make(network, settings.steps)

        def passing(network: Any = network, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad()
            torch.autograd.backward(silog(network(image), target, target > 0, 0.85))

        steps[name] = (passing, optimizer.step)
        passing()
        optimizer.step()
        optimizer.zero_grad()
        alive = Alive()
        alive.see([*network.parameters(), *network.buffers(), *held_tensors(optimizer)])
        state = sum(tensor.nbytes for tensor in held_tensors(optimizer))
        with alive:
            passing()
            optimizer.step()
        found[name] = {"state_mib": state / 2**20, "most_mib": alive.most / 2**20}
    times = timed(steps, rounds)
    for name in names:
        whole = [sum(pair) for pair in times[name]]
        first = [sum(pair) for pair in times[FIRST]] if FIRST in times else whole
        found[name] |= {
            "own_ms": 1e3 * statistics.median(own for _, own in times[name]),
            "step_ms": 1e3 * statistics.median(whole),
            "times_adamw": statistics.median(
                mine / theirs for mine, theirs in zip(whole, first, strict=True)
            ),
        }
    return found


def timed(
    steps: dict[str, tuple[Callable[[], None], Callable[[], None]]], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Processor seconds of both parts by round."""
    order, shuffler = list(steps), random.Random(0)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for i in range(DROPPED_ROUNDS + rounds):
        shuffler.shuffle(order)
        for name in order:
            begun = time.process_time()
            steps[name][0]()
            passed = time.process_time()
            steps[name][1]()
            ended = time.process_time()
            if i >= DROPPED_ROUNDS:
                times[name].append((passed - begun, ended - passed))
    return times
