"""What larger ranks, more steps and more frames change: a table, and one figure."""

from matplotlib.figure import Figure

from benchmarks.comparison.methods import METHODS
from benchmarks.comparison.plan import Plan, has_rank
from benchmarks.comparison.reporting.markdown import (
    percent,
    plus_minus,
    section,
    table,
)
from benchmarks.comparison.reporting.statistics import Estimate, estimate
from benchmarks.comparison.runs import Group, Runs, tested

SIZE_IN = (7.5, 3.6)
SHADES = (0.4, 0.7, 1.0)
"""Of a method's colour, from its smallest rank to its largest."""
WIDTH = 0.8
"""Of what stands side by side, where columns are 1 apart."""

Row = list[Estimate | None]


def scale(plan: Plan, runs: Runs) -> str:
    """delta1 by rank, frames and steps."""
    rows = scaled(plan, runs)
    if not rows:
        return ""
    cells = {
        (method, rank): ["" if e is None else plus_minus(e) for e in row]
        for (method, rank), row in rows.items()
    }
    return section(
        "Larger ranks, more steps",
        f"delta1 on {plan.scaled_task}, means over the seeds ({plan.rank_seeds} of the "
        "larger ranks and steps), each rank at a learning rate of its own, chosen with "
        "the comparison's steps.",
        table(
            ["", *columns(plan)],
            [[name(plan, *one), *row] for one, row in cells.items()],
        ),
    )


def scale_figure(plan: Plan, runs: Runs) -> Figure:
    """delta1 with its interval, side by side for each number of frames and steps."""
    rows = scaled(plan, runs)
    figure = Figure(SIZE_IN, layout="constrained")
    axis = figure.subplots()
    for place, ((method, rank), row) in enumerate(rows.items()):
        shade = (plan.share_and_ranks if has_rank(method) else [rank]).index(rank)
        known = [(i, e) for i, e in enumerate(row) if e is not None]
        axis.errorbar(
            [i + WIDTH * (place / len(rows) - 0.5) for i, _ in known],
            [e.mean for _, e in known],
            [e.half for _, e in known],
            label=name(plan, method, rank),
            marker="o",
            linestyle="",
            color=f"C{plan.scaled.index(method)}",
            alpha=SHADES[shade] if has_rank(method) else 1.0,
        )
    axis.set_xticks(range(len(columns(plan))), columns(plan))
    axis.set_ylabel(f"delta1, {plan.scaled_task}")
    figure.legend(loc="outside right center", fontsize="x-small")
    return figure


def scaled(plan: Plan, runs: Runs) -> dict[tuple[str, int | None], Row]:
    """By method and rank, what each column has; empty without a larger rank's run.

    A rank of None is that of the first share, or of a method that has no choice.
    """
    found: dict[tuple[str, int | None], Row] = {}
    larger = False
    for method in plan.scaled:
        for rank in plan.share_and_ranks if has_rank(method) else [None]:
            share = plan.shares[0] if has_rank(method) and rank is None else None
            groups = [
                Group(plan.scaled_task, method, n, share, rank, steps)
                for n, steps in plan.scaled_runs
            ]
            known = [group in runs.groups for group in groups]
            if any(known):
                found[method, rank] = [
                    estimate(runs.values(group, tested("delta1"))) if there else None
                    for group, there in zip(groups, known, strict=True)
                ]
                larger |= rank is not None
    return found if larger else {}


def columns(plan: Plan) -> list[str]:
    return [
        f"{n} frames" + ("" if steps is None else f", {steps} steps")
        for n, steps in plan.scaled_runs
    ]


def name(plan: Plan, method: str, rank: int | None) -> str:
    title = METHODS[method].title
    if not has_rank(method):
        return title
    which = percent(plan.shares[0]) if rank is None else f"rank {rank}"
    return f"{title}, {which}"
