"""What larger ranks and more steps change: a table, and one figure."""

from matplotlib.figure import Figure

from benchmarks.comparison.methods import METHODS
from benchmarks.comparison.plan import Plan, has_rank
from benchmarks.comparison.reporting.markdown import plus_minus, section, table
from benchmarks.comparison.reporting.statistics import Estimate, estimate
from benchmarks.comparison.runs import Group, Runs, tested

AXES_IN = (3.4, 3.2)
"""Width and height of one panel."""


def scale(plan: Plan, runs: Runs) -> str:
    """delta1 by rank, steps and frames."""
    columns = [(n, steps) for n in frames(plan) for steps in plan.scaled_steps]
    rows = []
    for method, rank in contestants(plan):
        cells = [found(plan, runs, method, rank, *column) for column in columns]
        if any(cells):
            name = METHODS[method].title + ("" if rank is None else f", rank {rank}")
            rows.append([name, *("" if c is None else plus_minus(c) for c in cells)])
    if not rows:
        return ""
    heads = [f"{n} frames, {steps} steps" for n, steps in columns]
    return section(
        "Larger ranks, more steps",
        f"delta1 on {plan.scaled_task}, means over {plan.rank_seeds} seeds; rates are "
        f"those of rank {plan.scaled_ranks[0]} and {plan.scaled_steps[0]} steps.",
        table(["", *heads], rows),
    )


def scale_figure(plan: Plan, runs: Runs) -> Figure:
    """A panel for each number of frames: delta1 against steps."""
    panels = frames(plan)
    figure = Figure((AXES_IN[0] * len(panels), AXES_IN[1]), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, n in zip(axes, panels, strict=True):
        for number, (method, rank) in enumerate(contestants(plan)):
            points = [
                (steps, value)
                for steps in plan.scaled_steps
                if (value := found(plan, runs, method, rank, n, steps)) is not None
            ]
            if points:
                axis.errorbar(
                    [steps for steps, _ in points],
                    [value.mean for _, value in points],
                    [value.half for _, value in points],
                    label=METHODS[method].title + ("" if rank is None else f" {rank}"),
                    marker="o",
                    linestyle="-" if rank == plan.scaled_ranks[0] else "--",
                    color=f"C{plan.scaled.index(method)}",
                    alpha=1 - 0.1 * (number % 2),
                )
        axis.set(xscale="log", xlabel="steps", ylabel="delta1", title=f"{n} frames")
    axes[-1].legend(fontsize="x-small")
    return figure


def contestants(plan: Plan) -> list[tuple[str, int | None]]:
    """Methods with their ranks; None of one that has none."""
    found: list[tuple[str, int | None]] = []
    for method in plan.scaled:
        ranks = plan.scaled_ranks if has_rank(method) else (None,)
        found += [(method, rank) for rank in ranks]
    return found


def frames(plan: Plan) -> list[int]:
    return sorted({min(plan.frames), plan.tuned_at})


def found(
    plan: Plan, runs: Runs, method: str, rank: int | None, n: int, steps: int
) -> Estimate | None:
    """delta1 of a group of runs; None without any."""
    group = Group(plan.scaled_task, method, n, rank=rank, steps=steps)
    if group not in runs.groups:
        return None
    return estimate(runs.values(group, tested("delta1")))
