"""Which optimisers and batches fit a card: counted bytes, and what follows of them."""

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.optimising.contestants import CONTESTANTS
from benchmarks.optimising.counting import Pass, Step, pass_bytes, step_bytes
from benchmarks.stopwatch import write_json
from models.networks.presets import Size

SIZES: tuple[Size, ...] = ("S", "B", "L")
CARDS_GIB = (8, 12, 24)
RESERVE_GIB = 1.0
"""Left to the device's context, workspaces and fragments, which nobody counted."""
IMAGE_SIZE = (392, 518)
"""Of the recipe for NYU."""
BATCHES = (1, 2, 8)
"""Counted; others lie between them or beyond."""
GIB, MIB = 2**30, 2**20


@dataclass
class Counted:
    """Bytes by size: passes by (batch, checkpointed), steps by contestant."""

    image_size: tuple[int, int]
    bf16: bool
    passes: dict[str, Pass] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)

    def most(self, size: Size, name: str, batch: int, *, checkpointed: bool) -> int:
        """Bytes at the worst moment of a training step.

        The worst of moments that each grow by the same for every frame grows ever
        faster until one moment is the worst for good: the line between two counts is
        never too low, and the line through the last two goes on as the counts do.
        """
        low, high = next(
            ((low, high) for low, high in itertools.pairwise(BATCHES) if batch <= high),
            BATCHES[-2:],
        )
        first, last = (self.passes[place(size, n, checkpointed)] for n in (low, high))
        slope = (last.most - first.most) / (high - low)
        step = self.steps[f"{size} {name}"]
        passing = first.most + math.ceil((batch - low) * slope)
        stepping = first.weights + first.gradients + step.beside
        return step.state + max(passing, stepping)

    def batch(self, size: Size, name: str, gib: float, *, checkpointed: bool) -> int:
        """The largest batch that fits into so many GiB; 0 if none does."""
        room = int((gib - RESERVE_GIB) * GIB)
        first = self.most(size, name, 1, checkpointed=checkpointed)
        if first > room:
            return 0
        batch = 1
        while self.most(size, name, batch + 1, checkpointed=checkpointed) <= room:
            batch += 1
        return batch


def place(size: Size, batch: int, checkpointed: bool) -> str:
    return f"{size} {batch}{' checkpointed' if checkpointed else ''}"


def count(
    names: Sequence[str],
    file: Path,
    sizes: Sequence[Size] = SIZES,
    image_size: tuple[int, int] = IMAGE_SIZE,
    bf16: bool = True,
) -> Counted:
    """Count what `file` does not have yet; it is written after each count."""
    counted = Counted(image_size, bf16)
    if file.is_file():
        content: dict[str, Any] = json.loads(file.read_text())
        counted.passes = {k: Pass(**v) for k, v in content["passes"].items()}
        counted.steps = {k: Step(**v) for k, v in content["steps"].items()}
    jobs: list[tuple[dict[str, Any], str, Callable[[], Any]]] = []
    for size in sizes:
        for batch in BATCHES:
            for checkpointed in (False, True):

                def passing(
                    size: Size = size,
                    batch: int = batch,
                    checkpointed: bool = checkpointed,
                ) -> Pass:
                    return pass_bytes(
                        size, batch, image_size, checkpointed=checkpointed, bf16=bf16
                    )

                jobs.append((counted.passes, place(size, batch, checkpointed), passing))
        for name in names:

            def stepping(size: Size = size, name: str = name) -> Step:
                fake = not CONTESTANTS[name].reads_values
                return step_bytes(size, name, fake=fake)

            jobs.append((counted.steps, f"{size} {name}", stepping))
    wanted = [job for job in jobs if job[1] not in job[0]]
    for into, key, job in tqdm(wanted, "counting bytes", disable=None):
        into[key] = job()
        write_json(file, asdict(counted))
    return counted
