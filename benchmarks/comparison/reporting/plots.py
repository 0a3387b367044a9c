"""Pictures of a comparison: accuracy against size, learning curves, forgetting."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.comparison.methods import METHODS
from benchmarks.comparison.plan import Plan, Results
from benchmarks.comparison.reporting.scale import scale, scale_figure
from benchmarks.comparison.runs import Group, Runs, mean, reader, tested

SMOOTHED = 8
"""Steps that a point of a learning curve is the mean of."""
COLOURS = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined]


def draw(plan: Plan, results: Results, folder: Path) -> dict[str, Path]:
    """Write the plots that the results suffice for; title to file."""
    runs = Runs(results)
    plots: dict[str, tuple[Path, Callable[[Plan, Runs], Figure]]] = {
        "delta1 against trainable parameters": (folder / "accuracy.png", accuracy),
        "Learning curves": (folder / "curves.png", curves),
        "Forgetting": (folder / "forgetting.png", forgetting),
    }
    if not any(runs.find(first_group(plan, method)) for method in plan.trained()):
        plots = {}
    if scale(plan, runs):
        plots["Ranks and steps"] = (folder / "scale.png", scale_figure)
    for path, plot in plots.values():
        part = path.with_name(f".{path.stem}.part.png")
        plot(plan, runs).savefig(part, dpi=110, metadata={"Software": None})
        part.replace(path)
    return {title: path for title, (path, _) in plots.items()}


def first_group(plan: Plan, method: str) -> Group:
    return Group(plan.tasks[0], method, plan.tuned_at, plan.shares[0])


def accuracy(plan: Plan, runs: Runs) -> Figure:
    """Every budget at `tuned_at` frames; lines join the ranks of a method."""
    figure, axes = panels(plan)
    for axis, task in zip(axes, plan.tasks, strict=True):
        for method in plan.trained():
            found = {
                group
                for share in plan.shares
                if (group := runs.find(Group(task, method, plan.tuned_at, share)))
            }
            points(axis, plan, method, runs, sorted(found, key=str), "o", "")
        if task == plan.ablated_task:
            for method in plan.ranked:
                groups = [
                    Group(task, method, plan.tuned_at, rank=rank) for rank in plan.ranks
                ]
                some = [group for group in groups if group in runs.groups]
                points(axis, plan, method, runs, some, ".", "-")
        axis.set(xscale="log", xlabel="trained parameters", title=task)
    axes[0].set_ylabel(f"delta1, {plan.tuned_at} frames")
    return with_legend(figure, axes[0])


def points(
    axis: Axes,
    plan: Plan,
    method: str,
    runs: Runs,
    groups: Sequence[Group],
    marker: str,
    line: str,
) -> None:
    """Mean delta1 of groups over their trained parameters."""
    if not groups:
        return
    axis.plot(
        [runs.values(group, reader("trained"))[0] for group in groups],
        [mean(runs.values(group, tested("delta1"))) for group in groups],
        marker=marker,
        linestyle=line,
        color=colour(plan, method),
        # One entry of the legend a method: that of its budgets.
        label=None if line else METHODS[method].title,
    )


def curves(plan: Plan, runs: Runs) -> Figure:
    """Training loss over the steps, mean over seeds."""
    figure, axes = panels(plan)
    for axis, task in zip(axes, plan.tasks, strict=True):
        for method in plan.trained():
            group = runs.find(Group(task, method, plan.tuned_at, plan.shares[0]))
            if group is None:
                continue
            losses = np.mean([run["losses"] for run in runs.groups[group].values()], 0)
            width = min(SMOOTHED, len(losses))
            smooth = np.convolve(losses, np.full(width, 1 / width), "valid")
            steps = np.arange(width, len(losses) + 1)
            axis.plot(
                steps,
                smooth,
                color=colour(plan, method),
                label=METHODS[method].title,
            )
        axis.set(xlabel="step", title=task)
    axes[0].set_ylabel(f"training SiLog, {plan.tuned_at} frames")
    return with_legend(figure, axes[0])


def forgetting(plan: Plan, runs: Runs) -> Figure:
    """delta1 on the task against delta1 on the source, median-scaled."""
    figure, axes = panels(plan)
    for axis, task in zip(axes, plan.tasks, strict=True):
        for method in plan.methods:
            group = runs.find(Group(task, method, plan.tuned_at, plan.shares[0]))
            if group is not None:
                x, x_spread = spread(runs.values(group, tested("delta1")))
                y, y_spread = spread(runs.values(group, reader("source_scaled")))
                axis.errorbar(
                    x,
                    y,
                    xerr=x_spread,
                    yerr=y_spread,
                    marker="o",
                    color=colour(plan, method),
                    label=METHODS[method].title,
                )
        axis.set(xlabel=f"delta1 on {task}")
    axes[0].set_ylabel("delta1 on the source, median-scaled")
    return with_legend(figure, axes[0])


def spread(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values))


def colour(plan: Plan, method: str) -> Any:
    return COLOURS[list(plan.methods).index(method) % len(COLOURS)]


def panels(plan: Plan) -> tuple[Figure, list[Axes]]:
    figure = Figure((3.2 + 4.2 * len(plan.tasks), 4.6), layout="constrained")
    grid = figure.subplots(1, len(plan.tasks), squeeze=False)
    return figure, list(grid[0])


def with_legend(figure: Figure, axis: Axes) -> Figure:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize="small")
    return figure
