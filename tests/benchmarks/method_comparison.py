# ruff: noqa: T201  (a command line prints)
"""Which adapter is worth using: every method, adapted and scored under one protocol.

    python -m tests.benchmarks.method_comparison                 # everything
    python -m tests.benchmarks.method_comparison --quick         # does it run at all?
    python -m tests.benchmarks.method_comparison --parts methods --out DIR
    python -m tests.benchmarks.method_comparison --report-only   # tables and plots again

The base is the network that this project pretrained on synthetic rooms. It is adapted
to streets (another range, geometry and camera) and to rooms under another camera. All
methods have the same steps, batches, order of frames and schedule; every seed draws
its own training frames. Ranks are what a budget of trainable numbers buys. The peak
learning rate is chosen per task and method by climbing one grid on validation frames,
with a seed of its own; test frames are only scored. One run is one process with one
thread, so that results are the same to the bit however many run at once.

OUT gets one JSON per run (a finished run is not run again), `report.md` and its plots.
"""

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tests.benchmarks.comparison.cell import Cell, Settings, quiet, run
from tests.benchmarks.comparison.plan import (
    PARTS,
    QUICK,
    Part,
    Plan,
)
from tests.benchmarks.comparison.tasks import SOURCE, TASKS, store
from tests.benchmarks.stopwatch import machine, write_json

Results = dict[Cell, dict[str, Any]]
QUICK_SETTINGS = Settings(
    image_size=(42, 56),
    pool=16,
    n_val=4,
    n_test=4,
    n_source=4,
    steps=4,
    noise_batches=2,
)


def compare(
    plan: Plan, settings: Settings, parts: Sequence[Part], out: Path, workers: int
) -> Results:
    """Run what is not done yet; every result of the plan."""
    out.mkdir(parents=True, exist_ok=True)
    same_settings(out, settings)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=quiet) as executor:
        render(plan, settings, out / "frames", executor)
        results: Results = {}
        while cells := plan.tuning(results, parts):
            results |= finish(cells, settings, out, executor, "choosing rates")
        cells = plan.scored(plan.rates(results, parts), parts)
        return results | finish(cells, settings, out, executor, "runs")


def same_settings(out: Path, settings: Settings) -> None:
    """Refuse to mix runs of different settings in one folder."""
    file, wanted = out / "settings.json", json.loads(json.dumps(asdict(settings)))
    if not file.exists():
        write_json(file, wanted)
    elif json.loads(file.read_text()) != wanted:
        raise SystemExit(
            f"{out} holds runs with other settings ({file.name}); give another --out "
            "or the options that they were made with"
        )


def render(plan: Plan, settings: Settings, folder: Path, executor: Executor) -> None:
    """Render the frames of all tasks, once."""
    jobs = [
        (
            TASKS[name],
            {"train": settings.pool, "val": settings.n_val, "test": settings.n_test},
        )
        for name in plan.tasks
    ]
    jobs.append((SOURCE, {"test": settings.n_source}))
    total = sum(n for _, lengths in jobs for n in lengths.values())
    with tqdm(total=total, desc="frames", disable=None) as bar:
        for task, lengths in jobs:
            for done in store(folder, task, lengths, settings.image_size, executor):
                bar.update(done)


def finish(
    cells: Sequence[Cell],
    settings: Settings,
    out: Path,
    executor: Executor,
    title: str,
) -> Results:
    """Results of all cells, from disk where they are, else run and written there."""
    folder = out / "runs"
    folder.mkdir(exist_ok=True)
    results = {cell: found for cell in cells if (found := read(folder, cell))}
    missing = [cell for cell in cells if cell not in results]
    jobs = {
        executor.submit(run, cell, settings, out / "frames"): cell for cell in missing
    }
    try:
        for job in tqdm(as_completed(jobs), title, len(jobs), disable=None):
            cell = jobs[job]
            results[cell] = job.result()
            write_json(folder / cell.file_name, results[cell])
    finally:
        for job in jobs:
            job.cancel()
    return {cell: results[cell] for cell in cells}


def read(folder: Path, cell: Cell) -> dict[str, Any] | None:
    file = folder / cell.file_name
    if not file.is_file():
        return None
    content: dict[str, Any] = json.loads(file.read_text())
    return content


if __name__ == "__main__":
    plan, settings, out = Plan(), Settings(), Path("runs/method_comparison")
    compare(plan, settings, PARTS, out, os.cpu_count() or 1)
