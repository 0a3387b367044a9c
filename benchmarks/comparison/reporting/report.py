"""The Markdown report of a comparison, from its runs alone."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.comparison.cell import SCORED
from benchmarks.comparison.methods import CONTESTANTS, METHODS
from benchmarks.comparison.plan import Plan, Results, has_rank
from benchmarks.comparison.reporting.findings import (
    Costs,
    ablations,
    cost_table,
    inside,
    ranks,
    rates,
    real_frames,
)
from benchmarks.comparison.reporting.markdown import (
    p_text,
    percent,
    plus_minus,
    section,
    table,
)
from benchmarks.comparison.reporting.scale import scale
from benchmarks.comparison.reporting.statistics import (
    Estimate,
    difference,
    estimate,
    holm,
)
from benchmarks.comparison.runs import Group, Runs, mean, reader, tested
from benchmarks.comparison.tasks import TASKS

REFERENCE = "lora"
"""Whom every row is compared with: LoRA on the same layers as the others."""
PAIRS = (
    ("lava", "lora"),
    ("lava", "lora_encoder"),
    ("lava", "lora_orthogonal"),
    ("lava", "dora"),
    ("lava", "tucker"),
    ("lava", "tucker_1"),
    ("lava", "svdiff"),
    ("lava", "lava_none"),
    ("lava", "lava_paper"),
    ("lava", "lava_offdiag"),
    ("lora", "lora_encoder"),
    ("lora_orthogonal", "lora"),
    ("lava", "head"),
    ("lava", "full"),
)
"""The questions: is the first better than the second?"""


def make_report(
    plan: Plan, results: Results, costs: Costs, preamble: Sequence[str]
) -> str:
    """All tables; sections whose runs are missing are left out.

    Args:
        plan: What was compared.
        results: Every run of it.
        costs: Of `measure_costs`; empty to leave them out.
        preamble: Paragraphs that go first.
    """
    runs = Runs(results)
    sections = [
        *preamble,
        overview(plan, runs, "delta1 of every method", tested("delta1")),
        overview(plan, runs, "Median-scaled delta1", reader("test_scaled")),
        questions(plan, runs),
        *(
            setting(plan, runs, task, n, share)
            for share in plan.shares
            for task in plan.tasks
            for n in (plan.frames if share == plan.shares[0] else [plan.tuned_at])
        ),
        inside(plan, runs),
        cost_table(costs),
        ablations(plan, runs),
        ranks(plan, runs),
        scale(plan, runs),
        real_frames(plan, runs),
        rates(plan, results),
    ]
    return "\n\n".join(one for one in sections if one) + "\n"


def overview(plan: Plan, runs: Runs, title: str, read: Callable[[Any], float]) -> str:
    """One score of every method in every setting."""
    columns = [
        (f"{task}, {n}", Group(task, "", n, plan.shares[0]))
        for task in plan.tasks
        for n in plan.frames
    ]
    columns += [
        (
            f"{task}, {plan.tuned_at}, {percent(share)}",
            Group(task, "", plan.tuned_at, share),
        )
        for share in plan.shares[1:]
        for task in plan.tasks
    ]
    first = len(plan.tasks) * len(plan.frames)
    rows = []
    for method in plan.methods:
        cells: list[str] = []
        means: list[float] = []
        for i, (_, template) in enumerate(columns):
            group = runs.find(replace(template, method=method))
            if group is None or (i >= first and not has_rank(method)):
                cells.append("")
                continue
            found = estimate(runs.values(group, read))
            cells.append(plus_minus(found))
            if i < first:
                means.append(found.mean)
        if means:
            rows.append([METHODS[method].title, f"{mean(means):.3f}", *cells])
    if not rows:
        return ""
    return section(
        title,
        f"Means over {plan.seeds} seeds and the half-width of their 95 % interval; "
        f"adapters at {percent(plan.shares[0])} trainable unless the column says "
        "otherwise. `mean` is that of the columns at that share.",
        table(["method", "mean", *(name for name, _ in columns)], rows),
    )


def questions(plan: Plan, runs: Runs) -> str:
    """Differences in delta1, averaged over the settings, paired by seed."""
    lines, p_values = [], []
    for ours, theirs in PAIRS:
        by_setting = []
        for task in plan.tasks:
            for n in plan.frames:
                groups = [
                    runs.find(Group(task, method, n, plan.shares[0]))
                    for method in (ours, theirs)
                ]
                if groups[0] is not None and groups[1] is not None:
                    a, b = runs.paired(groups[0], groups[1], tested("delta1"))
                    by_setting.append([x - y for x, y in zip(a, b, strict=True)])
        if not by_setting:
            continue
        by_seed = [mean(d) for d in zip(*by_setting, strict=True)]
        found = difference(by_seed, [0.0] * len(by_seed))
        ahead = sum(sum(d) > 0 for d in by_setting)
        p_values.append(found.p)
        lines.append(
            [
                f"{CONTESTANTS[ours].title} - {CONTESTANTS[theirs].title}",
                plus_minus(found, sign=True),
                f"{ahead} of {len(by_setting)}",
            ]
        )
    if not lines:
        return ""
    adjusted = holm(p_values)
    rows = [[*line, p_text(p)] for line, p in zip(lines, adjusted, strict=True)]
    return section(
        "Who is better than whom",
        "Difference in delta1 at the first share, for each seed the mean over all "
        "settings (task x frames), paired by seed; in how many settings the first "
        "is ahead; p of a paired t-test over the seeds, adjusted by Holm for all "
        "lines.",
        table(["", "difference", "ahead in", "p"], rows),
    )


def setting(plan: Plan, runs: Runs, task: str, n: int, share: float) -> str:
    """All scores of one task, number of frames and budget."""
    smaller = share != plan.shares[0]
    rows, p_values = [], []
    for method in plan.methods:
        group = runs.find(Group(task, method, n, share))
        if group is None or (smaller and not has_rank(method)):
            continue
        seen = next(iter(runs.groups[group].values()))
        reference = runs.find(Group(task, REFERENCE, n, share))
        gap = Estimate(math.nan, math.nan)
        if reference is not None and method != REFERENCE:
            gap = difference(*runs.paired(group, reference, tested("delta1")))
        p_values.append(gap.p)
        rate = runs.rates[group]
        rows.append(
            [
                METHODS[method].title,
                f"{seen['trained']:,}",
                percent(seen["trained"] / seen["total"], 2),
                "" if rate is None else f"{rate:g}",
                *(
                    plus_minus(estimate(runs.values(group, tested(name))))
                    for name in SCORED
                ),
                plus_minus(estimate(runs.values(group, reader("test_scaled")))),
                plus_minus(gap, sign=True),
                *(
                    plus_minus(estimate(runs.values(group, reader(name))))
                    for name in ("source", "source_scaled")
                ),
            ]
        )
    if not rows:
        return ""
    for row, p in zip(rows, holm(p_values), strict=True):
        row.insert(9, p_text(p))
    return section(
        f"{task}, {n} frames, {percent(share)}",
        table(
            [
                "method",
                "trained",
                "part",
                "rate",
                *SCORED,
                "median-scaled",
                "delta1 - LoRA's",
                "p",
                f"delta1 on {TASKS[task].source}",
                "that median-scaled",
            ],
            rows,
        ),
    )
