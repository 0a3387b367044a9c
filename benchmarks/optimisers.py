"""Which optimiser to train a whole network with: what each holds, costs and reaches.

    python -m benchmarks.optimisers                      # about an hour on one core
    python -m benchmarks.optimisers --parts memory       # minutes
    python -m benchmarks.optimisers --minutes 10         # what 10 minutes allow; again
                                                         # goes on, the report is of
                                                         # what there is

`loss` trains the packaged network whole on streets, as `benchmarks.method_comparison`
does in its row "full fine-tuning" (256 frames, 80 steps of 4, the same schedule, decay
0.01, no clipping). Every optimiser's peak rate is chosen by climbing one grid on
validation frames, with seeds of its own; five other seeds are scored on test frames.
`cost` times a whole step of the packaged network and the optimiser's part in it.
`memory` counts the bytes of a step for S, B and L, nothing of it allocated, and says
which optimisers and batches a card has room for.

OUT gets one JSON per run (what is finished is not run again), `costs.json`,
`memory.json` and `report.md`. galore-torch and torchao take part where they are
installed.
"""

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from tqdm import tqdm

from benchmarks.comparison.cell import Settings, quiet
from benchmarks.comparison.plan import GRID, best_rate, next_rate
from benchmarks.comparison.tasks import store
from benchmarks.method_comparison import same_settings
from benchmarks.optimising.contestants import CONTESTANTS
from benchmarks.optimising.costs import measure_costs
from benchmarks.optimising.memory import count
from benchmarks.optimising.report import costs, losses, memory
from benchmarks.optimising.training import N_TRAIN, TASK, Run, train
from benchmarks.stopwatch import machine, write_json
from datamodules.base import Split

Part = Literal["loss", "cost", "memory"]
Results = dict[Run, dict[str, Any]]
FIRST_TUNING_SEED = 1000


@dataclass(frozen=True)
class Plan:
    """Which runs there are."""

    names: Sequence[str]
    seeds: int
    """Of the scored runs, from 0."""
    tuning_seeds: int

    def tuning(self, name: str, rate: float) -> list[Run]:
        first = FIRST_TUNING_SEED
        seeds = range(first, first + self.tuning_seeds)
        return [Run(name, rate, seed, tuning=True) for seed in seeds]

    def validated(self, name: str, results: Results) -> dict[float, float]:
        """delta1 on validation frames by rate, the mean over the tuning seeds."""
        scores = {}
        for rate in GRID:
            found = [results.get(run) for run in self.tuning(name, rate)]
            points = [run["validation"][-1]["delta1"] for run in found if run]
            if len(points) == self.tuning_seeds:
                scores[rate] = sum(points) / len(points)
        return scores

    def missing(self, results: Results) -> list[Run]:
        """The next runs: rates to be tried, then scores, a seed of all at a time."""
        wanted = []
        for name in self.names:
            scores = self.validated(name, results)
            rate = next_rate(scores, CONTESTANTS[name].first_rate)
            if rate is not None:
                wanted += self.tuning(name, rate)
            else:
                best = best_rate(scores)
                wanted += [Run(name, best, seed) for seed in range(self.seeds)]
        wanted.sort(key=lambda run: (not run.tuning, run.seed))
        return [run for run in wanted if run not in results]


def finish_runs(
    plan: Plan, settings: Settings, out: Path, workers: int, deadline: float
) -> Results:
    """Run what is not done yet, until the deadline; everything that is done."""
    folder = out / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    same_settings(out, settings)
    results = read_runs(folder)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=quiet) as executor:
        lengths: dict[Split, int] = {
            "train": settings.pool,
            "val": settings.n_val,
            "test": settings.n_test,
        }
        frames = store(
            out / "frames",
            TASK,
            lengths,
            settings.image_size,
            executor,
        )
        for _ in tqdm(frames, "frames", disable=None):
            pass
        with tqdm(desc="runs", initial=len(results), disable=None) as bar:
            while wanted := plan.missing(results):
                some = wanted[:workers]
                if time.monotonic() > deadline:
                    print(f"stopped with {len(wanted)} or more runs to do")
                    break
                jobs = [
                    executor.submit(train, run, settings, out / "frames")
                    for run in some
                ]
                for run, job in zip(some, jobs, strict=True):
                    results[run] = job.result()
                    write_json(folder / run.file_name, results[run])
                    bar.update()
    return results


def read_runs(folder: Path) -> Results:
    contents = [json.loads(file.read_text()) for file in folder.glob("*.json")]
    return {Run(**content["run"]): content for content in contents}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.optimisers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/optimisers"))
    add("--parts", nargs="+", choices=get_args(Part), default=list(get_args(Part)))
    add("--optimisers", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    add("--steps", type=int, default=Settings().steps)
    add("--image-size", type=int, nargs=2, default=Settings().image_size)
    add("--seeds", type=int, default=5, help="of the scored runs")
    add("--tuning-seeds", type=int, default=2, help="of the runs that choose rates")
    add("--workers", type=int, default=os.cpu_count() or 1, help="runs at once")
    add("--rounds", type=int, default=20, help="of measuring times")
    add("--minutes", type=float, default=float("inf"), help="begin no run after that")
    add("--accelerator", default="cpu", help="Lightning's; gpu with --workers 1")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run the parts of the command line and write the report."""
    options = parse(arguments)
    deadline = time.monotonic() + 60 * options.minutes
    settings = replace(
        Settings(),
        image_size=tuple(options.image_size),
        steps=options.steps,
        accelerator=options.accelerator,
    )
    names = [name for name in options.optimisers if CONTESTANTS[name].available]
    for name in set(options.optimisers) - set(names):
        print(f"{name} is left out: {CONTESTANTS[name].needs} is not installed")
    options.out.mkdir(parents=True, exist_ok=True)
    results = read_runs(options.out / "runs")
    plan = Plan(names, options.seeds, options.tuning_seeds)
    if "loss" in options.parts:
        results = finish_runs(plan, settings, options.out, options.workers, deadline)
    parts = losses(names, results)
    file = options.out / "costs.json"
    if "cost" in options.parts and not file.is_file():
        write_json(file, measured(names, settings, options.rounds))
    if file.is_file():
        found = json.loads(file.read_text())
        parts.append(costs(found["optimisers"], found["how"]))
    file = options.out / "memory.json"
    if "memory" in options.parts:
        count(names, file)
    if file.is_file():
        parts += memory(names, count(names=[], file=file))
    report = options.out / "report.md"
    report.write_text("\n\n".join([*preamble(plan, options.out), *parts]) + "\n")
    print(report)


def measured(
    names: Sequence[str], settings: Settings, rounds: int
) -> dict[str, object]:
    """Costs, and how they were measured."""
    found = measure_costs(names, settings, rounds)
    where = machine(on_cuda=False)
    how = (
        f"Processor time of one thread, medians of {rounds} rounds in which all take "
        f"turns: {where['cpu']}, torch {where['torch']}, {where['date']}, load "
        f"{where['load_at_start']:.1f} on {where['cores']} cores. Packaged network, "
        f"{settings.batch_size} frames of {settings.image_size[0]}x"
        f"{settings.image_size[1]} px. `most` is what is alive at the worst moment of "
        "a step, counted."
    )
    return {"how": how, "optimisers": found}


def preamble(plan: Plan, out: Path) -> list[str]:
    """What was run: the settings of the runs that there are."""
    where, lines = machine(on_cuda=False), ["# Optimisers for training everything"]
    lines.append(
        f"Written on {where['date']} by `{where['command']}`: {where['cpu']}, torch "
        f"{where['torch']}."
    )
    file = out / "settings.json"
    if file.is_file():
        settings = Settings(**json.loads(file.read_text()))
        rows, cols = settings.image_size
        lines.append(
            f"Base: {settings.weights}, trained whole on {N_TRAIN} frames of streets: "
            f"{settings.steps} steps of {settings.batch_size} frames at {rows}x{cols} "
            f"px, the schedule of all training, decay 0.01, no clipping; "
            f"{settings.n_test} test frames. Peak rates by climbing the grid "
            f"{', '.join(f'{rate:g}' for rate in GRID)} on {settings.n_val} validation "
            f"frames with {plan.tuning_seeds} seed(s) of their own."
        )
    return lines


if __name__ == "__main__":
    main()
