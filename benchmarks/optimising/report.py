"""The report: what each optimiser reaches, costs and holds, and what to take."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.comparison.reporting.markdown import (
    p_text,
    plus_minus,
    section,
    table,
)
from benchmarks.comparison.reporting.statistics import difference, estimate, holm
from benchmarks.optimising.contestants import CONTESTANTS
from benchmarks.optimising.memory import BATCHES, CARDS_GIB, RESERVE_GIB, SIZES, Counted
from benchmarks.optimising.training import Run
from models.networks.presets import Size

Results = Mapping[Run, Mapping[str, Any]]
MIB = 2**20
BASELINE = "adamw"
AVERAGED = 5
"""Steps around a point of a curve, which its loss is the mean of."""
USEFUL_BATCH = 4
"""Frames at once below which a step is mostly waiting; more come by accumulation."""


def losses(names: Sequence[str], results: Results) -> list[str]:
    """Tables of what was reached, and on which way."""
    scored = {
        name: sorted(
            (run for run in results if run.optimizer == name and not run.tuning),
            key=lambda run: run.seed,
        )
        for name in names
    }
    scored = {name: runs for name, runs in scored.items() if runs}
    if not scored:
        return [section("What they reach", "No run is scored yet.")]

    def delta1(name: str, seeds: set[int]) -> list[float]:
        runs = (run for run in scored[name] if run.seed in seeds)
        return [results[run]["test"]["delta1"] for run in runs]

    rivals = [name for name in scored if name != BASELINE and BASELINE in scored]
    differences = {}
    for name in rivals:
        shared = {r.seed for r in scored[name]} & {r.seed for r in scored[BASELINE]}
        ours, theirs = delta1(name, shared), delta1(BASELINE, shared)
        differences[name] = difference(ours, theirs)
    ps = dict(zip(rivals, holm([differences[n].p for n in rivals]), strict=True))
    rows, curves = [], []
    for name, runs in scored.items():
        found = [results[run] for run in runs]
        state = found[0]["state_bytes"] / MIB
        apart = differences.get(name)
        rows.append(
            [
                CONTESTANTS[name].title,
                f"{state:.2f}",
                f"{runs[0].lr:g}",
                str(len(runs)),
                plus_minus(estimate([run["test"]["delta1"] for run in found])),
                plus_minus(estimate([run["test"]["abs_rel"] for run in found])),
                "" if apart is None else plus_minus(apart, sign=True),
                p_text(ps[name]) if name in ps else "",
            ]
        )
        steps = len(found[0]["losses"])
        marks = [round(steps * part) for part in (0.125, 0.25, 0.5, 0.75, 1)]
        means = [
            estimate(
                [
                    statistics.fmean(run["losses"][max(mark - AVERAGED, 0) : mark])
                    for run in found
                ]
            )
            for mark in marks
        ]
        curves.append([CONTESTANTS[name].title, *map(plus_minus, means)])
    head = ["optimiser", "state MiB", "rate", "seeds", "delta1", "abs_rel"]
    against = [f"delta1 - {CONTESTANTS[BASELINE].title}'s", "p"]
    at = [f"step {mark}" for mark in marks]
    return [
        section(
            "What they reach",
            "Test frames; means over seeds and the half-width of their 95 % interval "
            "(Student's t); p of a paired t-test over the shared seeds, adjusted by "
            "Holm for all lines.",
            table([*head, *against], rows),
            *(
                f"{CONTESTANTS[name].title}: {CONTESTANTS[name].note}."
                for name in scored
                if CONTESTANTS[name].note
            ),
        ),
        section(
            "Loss against steps",
            f"SiLog of training, the mean of the {AVERAGED} steps up to each.",
            table(["optimiser", *at], curves),
        ),
    ]


def costs(found: Mapping[str, Mapping[str, float]], how: str) -> str:
    columns = {
        "own ms": "own_ms",
        "whole step ms": "step_ms",
        "x AdamW's step": "times_adamw",
        "state MiB": "state_mib",
        "most MiB": "most_mib",
    }
    rows = [
        [
            CONTESTANTS[name].title,
            *(f"{values[key]:.2f}" for key in columns.values()),
        ]
        for name, values in found.items()
    ]
    return section("What a step takes", how, table(["optimiser", *columns], rows))


def memory(names: Sequence[str], counted: Counted) -> list[str]:
    """Tables of bytes, and of the batches that cards have room for."""
    names = [
        name for name in names if all(f"{s} {name}" in counted.steps for s in SIZES)
    ]
    held = [
        [
            CONTESTANTS[name].title,
            *(f"{counted.steps[f'{size} {name}'].state / MIB:.1f}" for size in SIZES),
        ]
        for name in names
    ]
    rows, cols = counted.image_size
    precision = "bf16-mixed" if counted.bf16 else "32-true"
    kept = []
    for size in SIZES:
        for checkpointed in (False, True):
            key = "{} {}" + (" checkpointed" if checkpointed else "")
            counts = [counted.passes[key.format(size, n)] for n in BATCHES]
            kept.append(
                [
                    size,
                    "yes" if checkpointed else "no",
                    f"{counts[0].weights / MIB:.0f}",
                    f"{counts[0].gradients / MIB:.0f}",
                    *(f"{found.most / MIB:.0f}" for found in counts),
                ]
            )
    fits = []
    for name in names:
        for size in SIZES:
            line = [CONTESTANTS[name].title, size]
            for gib in CARDS_GIB:
                plain, again = (
                    counted.batch(size, name, gib, checkpointed=checkpointed)
                    for checkpointed in (False, True)
                )
                line.append(f"{plain or '-'} / {again or '-'}")
            fits.append(line)
    cards = [f"{gib} GB" for gib in CARDS_GIB]
    return [
        section(
            "State, everything trained",
            "MiB between steps, projections that are held included; counted.",
            table(["optimiser", *SIZES], held),
        ),
        section(
            "Forward and backward",
            f"MiB of a step at {rows}x{cols} px, {precision}, before any optimiser; "
            "counted on the networks themselves without allocating them "
            "(`benchmarks/optimising/counting.py`), not measured on a GPU.",
            table(
                [
                    "size",
                    "checkpointing",
                    "weights",
                    "gradients",
                    *(f"most, batch {batch}" for batch in BATCHES),
                ],
                kept,
            ),
        ),
        section(
            "Which batch a card has room for",
            f"Frames at once without / with gradient checkpointing; computed from the "
            f"tables above, {RESERVE_GIB:g} GiB left to the device's context, "
            "workspaces and fragments. No GPU measured it. More frames a step come by "
            "`--trainer.accumulate_grad_batches`, which keeps the gradients between "
            "passes: one weights' size more.",
            table(["optimiser", "size", *cards], fits),
        ),
        section("What to take", *answers(counted)),
    ]


def answers(counted: Counted) -> list[str]:
    """By card and size, the first choice that leaves room for a useful batch."""
    choices = [
        (name, checkpointed)
        for checkpointed in (False, True)
        for name in (BASELINE, "flora32", "flora16")
        if f"S {name}" in counted.steps
    ]
    lines = []
    for gib in CARDS_GIB:
        parts = []
        for size in SIZES:
            found = choice(counted, size, gib, choices)
            parts.append(f"{size}: {found}")
        lines.append(f"- **{gib} GB**: {'; '.join(parts)}.")
    return [
        "The first of AdamW, Flora, and both again with gradient checkpointing, that "
        f"has room for {USEFUL_BATCH} frames at once, else for any.",
        "\n".join(lines),
    ]


def choice(
    counted: Counted, size: Size, gib: float, choices: Sequence[tuple[str, bool]]
) -> str:
    for least in (USEFUL_BATCH, 1):
        for name, checkpointed in choices:
            batch = counted.batch(size, name, gib, checkpointed=checkpointed)
            if batch >= least:
                more = " with checkpointing" if checkpointed else ""
                return f"{CONTESTANTS[name].title}{more} (batch {batch})"
    return "nothing that trains everything; take an adapter"
