"""Run a network over batches of pictures: on one processor here, on several elsewhere.

One processor needs no Lightning, whose import takes as long as the rest of a start.
"""

import os
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from app.prediction.batch import PhotographBatch, Step
from app.prediction.options import Accelerator, Precision, Prediction
from datamodules.errors import DataError

T = TypeVar("T")
Loader = Callable[[int, int], DataLoader[Any]]
"""Batches of one of so many processes: (processes, this one's number)."""
LAUNCHERS = ("WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
"""Set by what starts several processes, whatever --devices says."""
HALF = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


class Sink(Protocol):
    """Where outcomes go, batch by batch."""

    def add(self, outcome: Any, batch: PhotographBatch, seconds: float) -> None:
        """Take a batch's outcome, for which so long was computed."""


class Runner(ABC):
    """Steps through batches."""

    rank = 0
    world_size = 1

    @abstractmethod
    def run(self, step: Step, loader: Loader, sink: Sink) -> None:
        """Compute every batch of this process, in order."""

    @abstractmethod
    def gathered(self, own: T) -> list[T]:
        """What each process has, by its number."""

    @abstractmethod
    def barrier(self) -> None:
        """Wait until every process is here."""


class OneDevice(Runner):
    """One process on one processor.

    Args:
        device: Which.
        precision: Of the network's arithmetic.
    """

    def __init__(self, device: torch.device, precision: Precision) -> None:
        if device.type == "cpu" and precision == "16-mixed":
            warnings.warn(
                "no CPU computes networks in float16; bf16-mixed is used", stacklevel=2
            )
            precision = "bf16-mixed"
        self.device, self.dtype = device, HALF.get(precision)

    def run(self, step: Step, loader: Loader, sink: Sink) -> None:
        step.eval().to(self.device)
        half = torch.autocast(
            self.device.type, self.dtype, enabled=self.dtype is not None
        )
        batches = tqdm(loader(1, 0), "predicting", unit="batch", disable=None)
        with torch.inference_mode(), half:
            for batch in batches:
                began = time.monotonic()
                image = batch["image"].to(self.device, non_blocking=True)
                outcome = step.step(batch | {"image": image})
                sink.add(outcome, batch, time.monotonic() - began)

    def gathered(self, own: T) -> list[T]:
        return [own]

    def barrier(self) -> None:
        return


def runner(prediction: Prediction) -> Runner:
    """What runs predictions on the processors that are asked for.

    Raises:
        DataError: If there is none of them.
    """
    kind = _kind(prediction.accelerator)
    wanted = prediction.devices
    there = torch.cuda.device_count() if kind == "cuda" else 1
    count = there if wanted in ("auto", "-1") else None
    if wanted == "1":
        count = 1
    if count == 1 and not any(name in os.environ for name in LAUNCHERS):
        return OneDevice(torch.device(kind), prediction.precision)
    from app.prediction.processes import Processes

    return Processes(prediction)


def _kind(accelerator: Accelerator) -> str:
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    there = {"cuda": cuda, "mps": mps, "cpu": True, "gpu": cuda or mps, "auto": True}
    if not there[accelerator]:
        raise DataError(
            f"--accelerator {accelerator}: torch finds none on this machine; use cpu"
        )
    if accelerator in ("auto", "gpu"):
        return "cuda" if cuda else "mps" if mps else "cpu"
    return accelerator
