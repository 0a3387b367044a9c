"""Which adapter is worth using: every method, adapted and scored under one protocol.

    python -m benchmarks.method_comparison             # under an hour on 4 cores
    python -m benchmarks.method_comparison --parts methods ablations costs
    python -m benchmarks.method_comparison --quick     # does it run at all?

The base is the network that this project pretrained on synthetic rooms. It is adapted
to streets (another range, geometry and camera) and to rooms under another camera. All
methods have the same steps, batches, order of frames and schedule; every seed draws
its own training frames. Ranks are what a budget of trainable numbers buys. The peak
learning rate is chosen per task and method by climbing one grid on validation frames,
with seeds of its own; test frames are only scored. A run has one thread, so that it
gives the same numbers to the bit however many run at once.

OUT gets one JSON per run (what is finished is not run again), `report.md` and plots.
"""

import argparse
import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

from tqdm import tqdm

from benchmarks.comparison.cell import Cell, Settings, quiet, run
from benchmarks.comparison.costs import measure_costs
from benchmarks.comparison.photographs import store_photographs
from benchmarks.comparison.plan import PARTS, PHOTOS, QUICK, Part, Plan
from benchmarks.comparison.real import store_real
from benchmarks.comparison.reporting.plots import draw
from benchmarks.comparison.reporting.report import make_report
from benchmarks.comparison.tasks import SOURCE, TASKS, Task, store
from benchmarks.stopwatch import machine, write_json
from datamodules.base import Split
from models.networks.presets import Size

Results = dict[Cell, dict[str, Any]]
OF_PHOTOGRAPHS = (
    "Rates are chosen by training scenes that are not trained on, or by the last fifth "
    "of a single one; what was forgotten is read off the other place's test scenes."
)
COST_ROUNDS, QUICK_COST_ROUNDS = 12, 1
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
    plan: Plan,
    settings: Settings,
    parts: Sequence[Part],
    out: Path,
    workers: int,
    real: Path | None = None,
    photos: Path | None = None,
) -> Results:
    """Run what is not done yet; every result of the plan."""
    lengths = store_real(out / "frames", real, settings.image_size) if real else {}
    if photos:
        store_photographs(out / "frames", photos, settings.image_size)
    out.mkdir(parents=True, exist_ok=True)
    same_settings(out, settings)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=quiet) as executor:
        if not photos:
            render(plan, settings, out / "frames", executor)
        results: Results = {}
        while cells := plan.tuning(results, parts):
            results |= finish(cells, settings, out, executor, "choosing rates")
        rates = plan.rates(results, parts)
        cells = plan.scored(rates, parts) + plan.real(rates, lengths)
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
    jobs: list[tuple[Task, dict[Split, int]]] = [
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


def costs_of(
    plan: Plan, settings: Settings, out: Path, rounds: int
) -> dict[str, dict[str, float]]:
    """What `measure_costs` found; measured once, for it needs an idle machine."""
    file = out / "costs.json"
    if not file.is_file():
        print("measuring costs, one thread")
        write_json(file, measure_costs(plan, settings, rounds))
    content: dict[str, dict[str, float]] = json.loads(file.read_text())
    return content


def preamble(
    plan: Plan,
    settings: Settings,
    results: Results,
    where: dict[str, Any],
    workers: int,
) -> list[str]:
    """What was compared, where and with what; the runs' own times, added up."""
    sizes = [TASKS[task].image_size or settings.image_size for task in plan.tasks]
    shapes = " and ".join(dict.fromkeys(f"{rows}x{cols}" for rows, cols in sizes))
    frames = (
        OF_PHOTOGRAPHS
        if plan.tasks == PHOTOS.tasks
        else f"{settings.n_test} test frames, {settings.n_source} of the rooms that "
        "the base was pretrained on."
    )
    hours = sum(result["seconds"] for result in results.values()) / 3600
    total = next(iter(results.values()))["total"]
    return [
        "# Method comparison",
        f"Written on {where['date']} by `{where['command']}`: {where['cpu']}, torch "
        f"{where['torch']}, {len(results)} runs of one thread each, {hours:.1f} "
        f"core-hours ({60 * hours / workers:.0f} minutes with {workers} at once).",
        f"Base: {settings.weights}, {total:,} parameters. {settings.steps} steps of "
        f"{settings.batch_size} frames at {shapes} px. {frames} Intervals "
        "are over seeds; that the test frames are a sample too is not in them.",
    ]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.method_comparison",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, help="default: runs/method_comparison[_quick]")
    add("--parts", nargs="+", choices=PARTS, default=["methods", "costs"])
    add("--workers", type=int, default=os.cpu_count() or 1, help="runs at once")
    add("--quick", action="store_true", help="a few tiny runs of some methods")
    add(
        "--real",
        type=Path,
        metavar="CSV",
        help="real RGB-D frames up to 10 m, as configs/folder.yaml takes them; a data "
        "set is what a file's name has before its first underscore",
    )
    add(
        "--photos",
        type=Path,
        help="photographs with depth of two places, as benchmarks.zero_shot takes "
        "them, in place of the ray-cast tasks; such as --weights tiny-worlds --size "
        "mini --parts methods scale",
    )
    add("--size", choices=get_args(Size), default="tiny", help="of the base")
    add("--weights", default="tiny-rooms", help="of the base, metric")
    add("--steps", type=int, default=Settings().steps)
    add("--accelerator", default="cpu", help="Lightning's; gpu with --workers 1")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run the comparison of the command line and write its report."""
    options = parse(arguments)
    plan = QUICK if options.quick else PHOTOS if options.photos else Plan()
    if options.quick and options.photos:
        task = PHOTOS.ablated_task
        plan = replace(plan, tasks=PHOTOS.tasks, ablated_task=task, scaled_task=task)
    settings = QUICK_SETTINGS if options.quick else Settings(steps=options.steps)
    settings = replace(
        settings,
        size=options.size,
        weights=options.weights,
        accelerator=options.accelerator,
    )
    name = "photo_comparison" if options.photos else "method_comparison"
    name += "_quick" if options.quick else ""
    out: Path = options.out or Path("runs") / name
    workers: int = max(options.workers, 1)
    given = options.parts, out, workers, options.real, options.photos
    results = compare(plan, settings, *given)
    rounds = QUICK_COST_ROUNDS if options.quick else COST_ROUNDS
    measured = "costs" in options.parts
    costs = costs_of(plan, settings, out, rounds) if measured else {}
    where = machine(on_cuda=settings.accelerator != "cpu")
    head = preamble(plan, settings, results, where, workers)
    plots = draw(plan, results, out)
    head += [f"![{title}]({path.name})" for title, path in plots.items()]
    report = out / "report.md"
    report.write_text(make_report(plan, results, costs, head))
    print(f"{report}, {len(results)} runs")


if __name__ == "__main__":
    main()
