"""The Markdown report of a comparison, from its runs alone."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.benchmarks.comparison.cell import SCORED, Cell
from tests.benchmarks.comparison.methods import CONTESTANTS, METHODS
from tests.benchmarks.comparison.plan import GRID, Plan, has_rank, validated
from tests.benchmarks.comparison.statistics import (
    Estimate,
    difference,
    estimate,
    holm,
)

Results = Mapping[Cell, Mapping[str, Any]]
Costs = Mapping[str, Mapping[str, float]]
REFERENCE = "lora"
"""Whom every row is compared with: LoRA on the same layers as the others."""
PAIRS = (
    ("lava", "lora"),
    ("lava", "lora_encoder"),
    ("lava", "lora_orthogonal"),
    ("lava", "dora"),
    ("lava", "tucker"),
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


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone."""

    task: str
    method: str
    n_train: int
    share: float | None = None
    rank: int | None = None


class Runs:
    """Scored runs by group and seed."""

    def __init__(self, results: Results) -> None:
        self.tuning = {c: r for c, r in results.items() if c.tuning}
        self.groups: dict[Group, dict[int, Mapping[str, Any]]] = {}
        self.rates: dict[Group, float | None] = {}
        for cell, result in results.items():
            if not cell.tuning:
                group = Group(
                    cell.task, cell.method, cell.n_train, cell.share, cell.rank
                )
                self.groups.setdefault(group, {})[cell.seed] = result
                self.rates[group] = cell.lr

    def find(self, group: Group) -> Group | None:
        """The group itself, or that of a method which has no choice of a share."""
        for candidate in (group, replace(group, share=None)):
            if candidate in self.groups:
                return candidate
        return None

    def values(self, group: Group, read: Callable[[Any], float]) -> list[float]:
        runs = self.groups[group]
        return [read(runs[seed]) for seed in sorted(runs)]

    def paired(
        self, ours: Group, theirs: Group, read: Callable[[Any], float]
    ) -> tuple[list[float], list[float]]:
        """Values of the seeds that both have."""
        a, b = self.groups[ours], self.groups[theirs]
        seeds = sorted(a.keys() & b.keys())
        return [read(a[s]) for s in seeds], [read(b[s]) for s in seeds]


def test_score(name: str) -> Callable[[Any], float]:
    return lambda run: float(run["test"][name])


def make_report(
    plan: Plan, results: Results, costs: Costs, preamble: Sequence[str]
) -> str:
    """All tables; sections whose runs are missing are left out."""
    runs = Runs(results)
    sections = [
        "\n".join(preamble),
        overview(plan, runs),
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
        rates(plan, runs),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def overview(plan: Plan, runs: Runs) -> str:
    """delta1 of every method in every setting."""
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
            found = estimate(runs.values(group, test_score("delta1")))
            cells.append(plus_minus(found))
            if i < first:
                means.append(found.mean)
        if means:
            mean = f"{sum(means) / len(means):.3f}"
            rows.append([METHODS[method].title, mean, *cells])
    if not rows:
        return ""
    return "\n".join(
        [
            "## delta1 of every method",
            "",
            f"Means over {plan.seeds} seeds and the half-width of their 95 % interval; "
            f"adapters at {percent(plan.shares[0])} trainable unless the column says "
            "otherwise. `mean` is that of the columns at that share.",
            "",
            table(["", "mean", *(name for name, _ in columns)], rows),
        ]
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
                    a, b = runs.paired(groups[0], groups[1], test_score("delta1"))
                    by_setting.append([x - y for x, y in zip(a, b, strict=True)])
        if not by_setting:
            continue
        by_seed = [sum(d) / len(d) for d in zip(*by_setting, strict=True)]
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
    return "\n".join(
        [
            "## Who is better than whom",
            "",
            "Difference in delta1 at the first share, for each seed the mean over all "
            "settings (task x frames), paired by seed; in how many settings the first "
            "is ahead; p of a paired t-test over the seeds, adjusted by Holm for all "
            "lines.",
            "",
            table(["", "difference", "ahead in", "p"], rows),
        ]
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
            gap = difference(*runs.paired(group, reference, test_score("delta1")))
        p_values.append(gap.p)
        rate = runs.rates[group]
        rows.append(
            [
                METHODS[method].title,
                f"{seen['trained']:,}",
                percent(seen["trained"] / seen["total"], 2),
                "" if rate is None else f"{rate:g}",
                *(
                    plus_minus(estimate(runs.values(group, test_score(name))))
                    for name in SCORED
                ),
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
        row.insert(8, p_text(p))
    return "\n".join(
        [
            f"## {task}, {n} frames, {percent(share)}",
            "",
            table(
                [
                    "",
                    "trained",
                    "part",
                    "rate",
                    *SCORED,
                    "delta1 - LoRA's",
                    "p",
                    "delta1 on rooms",
                    "median-scaled",
                ],
                rows,
            ),
        ]
    )


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
        defects = [run["defect"] for run in seen if run["defect"] is not None]
        rows.append(
            [
                METHODS[method].title,
                *(
                    f"{mean(run['increments'][part][key] for run in seen):{form}}"
                    for key, form in (
                        ("relative_norm", ".3f"),
                        ("effective_rank", ".1f"),
                    )
                    for part in parts
                ),
                f"{mean(defects):.3f}" if defects else "",
                f"{mean(run['gradient_noise'] for run in seen):.3f}",
            ]
        )
    if not rows:
        return ""
    names = ["attention", "mlp", "decoder"]
    return "\n".join(
        [
            "## What happened to the weights",
            "",
            f"At {plan.tuned_at} frames, means over tasks and seeds: |dW| / |W| and the "
            "effective rank of dW by group of layers; the root mean square cosine "
            "between two columns of a factor; and the part of the minibatch gradients' "
            "mean square that is variance, at a quarter of the steps.",
            "",
            table(
                [
                    "",
                    *(f"norm, {name}" for name in names),
                    *(f"rank, {name}" for name in names),
                    "cosine",
                    "gradient noise",
                ],
                rows,
            ),
        ]
    )


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
    return "\n".join(
        [
            "## What a step costs",
            "",
            "One thread, medians of interleaved rounds. The floor: the frozen network, "
            "forward and backward to beneath all blocks. Memory: weights, what autograd "
            "holds for backward, gradients and AdamW's moments.",
            "",
            table(["", "ms", "x floor", "MiB", "x floor"], rows),
        ]
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
        gap = difference(*runs.paired(own, base, test_score("delta1")))
        p_values.append(gap.p)
        some = list(runs.groups[own].values())
        defects = [run["defect"] for run in some if run["defect"] is not None]
        rows.append(
            [
                CONTESTANTS[name].title,
                METHODS[name.split()[0]].title,
                plus_minus(estimate(runs.values(own, test_score("delta1")))),
                plus_minus(gap, sign=True),
                f"{mean(run['increments']['decoder']['relative_norm'] for run in some):.3f}",
                f"{mean(defects):.3f}" if defects else "",
            ]
        )
    if not rows:
        return ""
    for row, p in zip(rows, holm(p_values), strict=True):
        row.insert(4, p_text(p))
    return "\n".join(
        [
            "## One change each",
            "",
            f"{task}, {n} frames, {percent(share)}, at the rate of what was changed.",
            "",
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
        ]
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
            defects = [run["defect"] for run in some if run["defect"] is not None]
            rows.append(
                [
                    METHODS[method].title,
                    str(rank),
                    percent(some[0]["trained"] / some[0]["total"], 2),
                    *(
                        plus_minus(estimate(runs.values(group, test_score(name))))
                        for name in SCORED
                    ),
                    plus_minus(estimate(runs.values(group, reader("source_scaled")))),
                    *(
                        f"{mean(run['increments'][p]['effective_rank'] for run in some):.1f}"
                        for p in ("attention", "decoder")
                    ),
                    f"{mean(defects):.3f}" if defects else "",
                ]
            )
    if not rows:
        return ""
    return "\n".join(
        [
            "## Rank",
            "",
            f"{plan.ablated_task}, {plan.tuned_at} frames, the same rank in every layer "
            f"(or all that a layer can have), {plan.rank_seeds} seeds, at the rates "
            f"chosen for {percent(plan.shares[0])}.",
            "",
            table(
                [
                    "",
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
        ]
    )


def rates(plan: Plan, runs: Runs) -> str:
    """What was validated to choose the rates."""
    rows, used = [], set()
    scores = {
        (task, method): validated(runs.tuning, task, method)
        for task in plan.tasks
        for method in plan.trained()
    }
    for found in scores.values():
        used |= found.keys()
    columns = [rate for rate in GRID if rate in used]
    for (task, method), found in scores.items():
        best = max(found.values(), default=math.nan)
        rows.append(
            [
                METHODS[method].title,
                task,
                *(
                    ("**{:.3f}**" if found[rate] == best else "{:.3f}").format(
                        found[rate]
                    )
                    if rate in found
                    else ""
                    for rate in columns
                ),
            ]
        )
    if not columns:
        return ""
    return "\n".join(
        [
            "## How the rates were chosen",
            "",
            f"delta1 on validation frames, {plan.tuned_at} training frames, one seed "
            "that is not scored; climbed from the same rate until the best one's "
            "neighbours are worse.",
            "",
            table(["", "task", *(f"{rate:g}" for rate in columns)], rows),
        ]
    )


def reader(name: str) -> Callable[[Any], float]:
    return lambda run: float(run[name])


def mean(values: Iterable[float]) -> float:
    some = list(values)
    return sum(some) / len(some)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plus_minus(found: Estimate, *, sign: bool = False) -> str:
    if math.isnan(found.mean):
        return ""
    plus = "+" if sign else ""
    half = "" if math.isnan(found.half) else f" ± {found.half:.3f}"
    return f"{found.mean:{plus}.3f}{half}"


def p_text(p: float) -> str:
    if math.isnan(p):
        return ""
    return "<.001" if p < 0.001 else f"{p:.3f}".lstrip("0")


def percent(part: float, digits: int = 1) -> str:
    return f"{100 * part:.{digits}f} %"
