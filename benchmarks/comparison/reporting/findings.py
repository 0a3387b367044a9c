"""Tables of what is behind the scores: weights, costs, ablations, ranks and rates."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.comparison.cell import SCORED
from benchmarks.comparison.methods import CONTESTANTS, METHODS
from benchmarks.comparison.plan import GRID, PARTS, Plan, Results
from benchmarks.comparison.reporting.markdown import (
    p_text,
    percent,
    plus_minus,
    section,
    table,
)
from benchmarks.comparison.reporting.statistics import difference, estimate, holm
from benchmarks.comparison.runs import Group, Runs, mean, reader, tested
from benchmarks.comparison.tasks import REAL

Costs = Mapping[str, Mapping[str, float]]


def inside(plan: Plan, runs: Runs) -> str:
    """What adapting did to the weights, and how noisy the gradients were."""
    rows = []
    for method in plan.methods:
        groups = [
            group
            for task in plan.tasks
            if (group := runs.find(Group(task, method, plan.tuned_at, plan.shares[0])))
        ]
        seen = [run for group in groups for run in runs.groups[group].values()]
        seen = [run for run in seen if "increments" in run]
        if not seen:
            continue
        parts = list(seen[0]["increments"])
        rows.append(
            [
                METHODS[method].title,
                *(
                    f"{change(seen, part, key):{form}}"
                    for key, form in (
                        ("relative_norm", ".3f"),
                        ("effective_rank", ".1f"),
                    )
                    for part in parts
                ),
                cosine(seen),
                f"{mean(run['gradient_noise'] for run in seen):.3f}",
            ]
        )
    if not rows:
        return ""
    names = ["attention", "mlp", "decoder"]
    return section(
        "What happened to the weights",
        f"At {plan.tuned_at} frames, means over tasks and seeds: |dW| / |W| and the "
        "effective rank of dW by group of layers; the root mean square cosine "
        "between two columns of a factor; and the part of the minibatch gradients' "
        "mean square that is variance, at a quarter of the steps.",
        table(
            [
                "method",
                *(f"norm, {name}" for name in names),
                *(f"rank, {name}" for name in names),
                "cosine",
                "gradient noise",
            ],
            rows,
        ),
    )


def change(runs: Sequence[Mapping[str, Any]], part: str, key: str) -> float:
    """Mean of one of the numbers of `probes.increments`."""
    return mean(run["increments"][part][key] for run in runs)


def cosine(runs: Sequence[Mapping[str, Any]]) -> str:
    """Mean defect of the runs that have one."""
    defects = [run["defect"] for run in runs if run["defect"] is not None]
    return f"{mean(defects):.3f}" if defects else ""


def cost_table(costs: Costs) -> str:
    if not costs:
        return ""
    rows = [
        [
            METHODS[name].title if name in METHODS else "frozen floor",
            f"{cost['ms']:.0f}",
            f"{cost['times_floor']:.2f}",
            f"{cost['mib']:.0f}",
            f"{cost['memory_times_floor']:.2f}",
        ]
        for name, cost in costs.items()
    ]
    return section(
        "What a step costs",
        "One thread, medians of interleaved rounds. The floor: the frozen network, "
        "forward and backward to beneath all blocks. Memory: weights, what autograd "
        "holds for backward, gradients and AdamW's moments.",
        table(["method", "ms", "x floor", "MiB", "x floor"], rows),
    )


def ablations(plan: Plan, runs: Runs) -> str:
    """One change each, against the method that it is a change of."""
    task, n, share = plan.ablated_task, plan.tuned_at, plan.shares[0]
    rows, p_values = [], []
    for name in plan.variants:
        own, base = (
            runs.find(Group(task, method, n, share))
            for method in (name, name.split()[0])
        )
        if own is None or base is None:
            continue
        gap = difference(*runs.paired(own, base, tested("delta1")))
        p_values.append(gap.p)
        some = list(runs.groups[own].values())
        rows.append(
            [
                CONTESTANTS[name].title,
                METHODS[name.split()[0]].title,
                plus_minus(estimate(runs.values(own, tested("delta1")))),
                plus_minus(gap, sign=True),
                f"{change(some, 'decoder', 'relative_norm'):.3f}",
                cosine(some),
            ]
        )
    if not rows:
        return ""
    for row, p in zip(rows, holm(p_values), strict=True):
        row.insert(4, p_text(p))
    return section(
        "One change each",
        f"{task}, {n} frames, {percent(share)}, at the rate of what was changed.",
        table(
            [
                "change",
                "of",
                "delta1",
                "difference",
                "p",
                "norm, decoder",
                "cosine",
            ],
            rows,
        ),
    )


def ranks(plan: Plan, runs: Runs) -> str:
    """Accuracy against rank, the same in every layer."""
    rows = []
    for method in plan.ranked:
        for rank in plan.ranks:
            group = Group(plan.ablated_task, method, plan.tuned_at, rank=rank)
            if group not in runs.groups:
                continue
            some = list(runs.groups[group].values())
            rows.append(
                [
                    METHODS[method].title,
                    str(rank),
                    percent(some[0]["trained"] / some[0]["total"], 2),
                    *(
                        plus_minus(estimate(runs.values(group, tested(name))))
                        for name in SCORED
                    ),
                    plus_minus(estimate(runs.values(group, reader("source_scaled")))),
                    *(
                        f"{change(some, part, 'effective_rank'):.1f}"
                        for part in ("attention", "decoder")
                    ),
                    cosine(some),
                ]
            )
    if len({row[1] for row in rows}) < 2:  # a single one is among the larger ranks
        return ""
    return section(
        "Rank",
        f"{plan.ablated_task}, {plan.tuned_at} frames, the same rank in every layer "
        f"(or all that a layer can have), {plan.rank_seeds} seeds, each rank at a "
        "learning rate of its own.",
        table(
            [
                "method",
                "rank",
                "part",
                *SCORED,
                "rooms, median-scaled",
                "effective rank, attention",
                "decoder",
                "cosine",
            ],
            rows,
        ),
    )


def real_frames(plan: Plan, runs: Runs) -> str:
    """delta1 and AbsRel on real data sets that were left out of training."""
    tasks = sorted({g.task for g in runs.groups if g.task.startswith(REAL)})
    rows = []
    for method in plan.real_methods:
        groups = [g for g in runs.groups if g.method == method and g.task in tasks]
        if not groups:
            continue
        groups.sort(key=lambda group: group.task)
        by_metric = [
            [
                mean(seed)
                for seed in zip(
                    *(runs.values(group, tested(name)) for group in groups), strict=True
                )
            ]
            for name in ("delta1", "abs_rel")
        ]
        rows.append(
            [
                METHODS[method].title,
                *(plus_minus(estimate(values)) for values in by_metric),
                *(
                    f"{mean(runs.values(group, tested('delta1'))):.3f}"
                    for group in groups
                ),
            ]
        )
    if not rows:
        return ""
    return section(
        "Real frames",
        "Adapted to the frames of all data sets but one, scored on that one (delta1 in "
        f"its column); means over the data sets and {plan.rank_seeds} seeds. A handful "
        "of frames and a base that never saw a photograph: a check that the ordering "
        "is not one of ray-cast pictures alone, no more.",
        table(
            [
                "method",
                "delta1",
                "abs_rel",
                *(task.removeprefix(REAL) for task in tasks),
            ],
            rows,
        ),
    )


def rates(plan: Plan, results: Results) -> str:
    """What was validated to choose the rates."""
    scores = {
        contest: found
        for contest in plan.contests(PARTS)
        if (found := plan.validated(results, contest))
    }
    columns = [rate for rate in GRID if any(rate in row for row in scores.values())]
    if not columns:
        return ""
    rows = []
    for contest, found in scores.items():
        best = max(found.values())
        cells = ["" if rate not in found else f"{found[rate]:.3f}" for rate in columns]
        rank = "" if contest.rank is None else f", rank {contest.rank}"
        rows.append(
            [
                METHODS[contest.method].title + rank,
                contest.task,
                *(
                    f"**{cell}**" if found.get(rate) == best else cell
                    for rate, cell in zip(columns, cells, strict=True)
                ),
            ]
        )
    return section(
        "How the rates were chosen",
        f"delta1 on validation frames, {plan.tuned_at} training frames, means over "
        f"{len(plan.tuning_seeds)} seeds that are not scored; climbed until the best "
        "rate's neighbours are worse.",
        table(["method", "task", *(f"{rate:g}" for rate in columns)], rows),
    )
