"""Interleaved timing, and where and with what the numbers were made."""

import json
import math
import os
import platform
import random
import re
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

from datamodules.files.whole import whole_file

MIN_MEASURED_S = 0.01
"""Shorter steps are repeated within a measurement until it lasts this long."""


DROPPED_ROUNDS = 2


def measure(
    steps: dict[str, Callable[[], None]], *, on_cuda: bool, rounds: int
) -> dict[str, list[float]]:
    """Milliseconds per step and round, interleaved, in a random order per round.

    How often a step is repeated within a measurement, the first one decides for all.
    """
    timed = cuda_ms if on_cuda else cpu_ms
    first = next(iter(steps.values()))
    timed(first, 1)
    repeats = math.ceil(1e3 * MIN_MEASURED_S / timed(first, 1))
    order, shuffler = list(steps), random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(DROPPED_ROUNDS + rounds):
        shuffler.shuffle(order)
        for name in order:
            ms = timed(steps[name], repeats)
            if i >= DROPPED_ROUNDS:
                times[name].append(ms)
    return times


def cpu_ms(step: Callable[[], None], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return 1e3 * (time.perf_counter() - start) / repeats


def cuda_ms(step: Callable[[], None], repeats: int) -> float:
    event: Any = torch.cuda.Event
    start, end = (event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        step()
    end.record()
    end.synchronize()
    elapsed: float = start.elapsed_time(end)
    return elapsed / repeats


def quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def machine(*packages: str, on_cuda: bool) -> dict[str, str | int | float | None]:
    """Where and with what the numbers were made; the packages' versions, too."""
    versions: dict[str, str | None] = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    gpu = torch.cuda.get_device_name() if on_cuda else None
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]]),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_at_start": os.getloadavg()[0],
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **versions,
    }


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        found = re.search(r"model name\s*:\s*(.+)", info.read_text())
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def memory_mib(
    what: Literal["VmRSS", "VmHWM"], process: int | Literal["self"] = "self"
) -> float:
    """Resident size of a process, now or at its largest; 0 once it has ended."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(rf"{what}:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a whole file; what JSON has no form of, such as a path, as its text."""
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=1, default=str) + "\n")
