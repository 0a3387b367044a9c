"""What a training step costs with each adapter, beside the frozen network's own.

    python -m benchmarks.adapter_step --what layers --model S B --rounds 20
    python -m benchmarks.adapter_step --what network --device cuda --dtype bf16

A step is: gradients to None, forward, backward from a fixed random output gradient; no
loss, no optimiser. All contestants run in this process on the same frozen weights and
inputs, one step (or a few, where it is short) each per round, in a random order per
round; the first rounds are dropped. Before that, each of ours is compared with autograd
through the dense adapted weight, so that nothing broken is timed.

The floor, `frozen`, has no adapter and the same depth of backward: to a layer's input
(it stands in the middle of a network), in an encoder or network to the class token,
which lies beneath all blocks and is trainable for every contestant; the image needs no
gradient. Zero-initialised factors are set to small random values, for a GPU draws less
power on zeros.

Columns:
    params: trainable numbers of the adapter.
    ms, iqr: median and interquartile range over the rounds.
    x frozen: median over the rounds of time / the floor's time in that round.
    over ms: median over the rounds of time - the floor's time in that round.
    / peft: `over` by that of PEFT's LoRA (for DoRA: PEFT's DoRA).
    held MiB: distinct storages that autograd holds between forward and backward, at
        their full size, less parameters, buffers and the input. What a custom backward
        allocates on its way is not in it.
    input MiB: the input, if it is held too: an adapter must, a frozen linear layer
        need not. Whether a network pays for it depends on the layer before. A copy of
        it, as autocast makes, counts as held.
    peak MiB (CUDA): the allocator's maximum within a step less what was allocated
        before it, gradients included.
    penalty (networks): `orthogonality(network, Lava(rank))`, forward and backward, as a
        share of the `lava` step with it; eager even with --compile.

fp32 is true float32: TF32 is off. bf16 is autocast over frozen float32 weights.
"""

import argparse
import operator
import re
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import torch

from benchmarks.rivals import CONTESTANTS, FLOOR, our_config
from benchmarks.step_cases import Case, Options, Size, What, make_cases
from benchmarks.step_runner import Runner, make_runners
from benchmarks.stopwatch import machine, measure, quartiles, write_json
from models.adapters import orthogonality
from models.networks.encoder import DinoV2Encoder

MIB = 2**20


@dataclass(frozen=True)
class Row:
    """One line of the table; the columns are explained at the top of this file."""

    case: str
    contestant: str
    params: int
    median_ms: float
    iqr_ms: float
    times_frozen: float
    over_ms: float
    over_by_peft: float | None
    held_mib: float
    input_mib: float
    peak_mib: float | None
    rounds_ms: list[float]


@dataclass(frozen=True)
class Penalty:
    """Cost of the orthogonality penalty of `lava`."""

    case: str
    median_ms: float
    share_of_step: float


def run(case: Case, options: Options) -> tuple[list[Row], Penalty | None]:
    """Measure one case and print its table."""
    print(f"\n{case.name}: {len(case.layers)} adapted layers")
    runners = make_runners(case, options)
    steps = {name: runner.step for name, runner in runners.items()}
    if case.whole and "lava" in runners:
        steps["penalty"] = penalty_step(runners["lava"])
    on_cuda = options.device == "cuda"
    times = measure(steps, on_cuda=on_cuda, rounds=options.rounds)
    rows = make_rows(runners, times)
    print_rows(rows)
    if "penalty" not in times:
        return rows, None
    pairs = zip(times["penalty"], times["lava"], strict=True)
    penalty = Penalty(
        case=case.name,
        median_ms=statistics.median(times["penalty"]),
        share_of_step=statistics.median(own / (own + step) for own, step in pairs),
    )
    print(
        f"  penalty {penalty.median_ms:.3f} ms, {100 * penalty.share_of_step:.2f} % of "
        "the lava step with it"
    )
    return rows, penalty


def penalty_step(runner: Runner) -> Callable[[], None]:
    """Forward and backward of the penalty alone, on an adapted network."""
    config = our_config("Lava", runner.case.layers, runner.options.rank)

    def step() -> None:
        for parameter in runner.trained:
            parameter.grad = None
        penalty = orthogonality(runner.network, config)
        assert penalty is not None
        torch.autograd.backward(penalty)

    return step


def make_rows(runners: dict[str, Runner], times: dict[str, list[float]]) -> list[Row]:
    """Compare each contestant with the floor and with its PEFT twin."""
    floor = times[FLOOR]
    over = {
        name: statistics.median(map(operator.sub, times[name], floor))
        for name in runners
    }
    twins = {contestant.name: contestant.twin for contestant in CONTESTANTS}
    rows = []
    for name, runner in runners.items():
        twin = over.get(twins[name], 0.0)
        # A twin within the noise of the floor gives no ratio.
        by_peft = over[name] / twin if twin > 0 and name != FLOOR else None
        low, middle, high = quartiles(times[name])
        held, held_x = runner.held_bytes()
        on_cuda = runner.options.device == "cuda"
        row = Row(
            case=runner.case.name,
            contestant=name,
            params=sum(parameter.numel() for parameter in runner.trained),
            median_ms=middle,
            iqr_ms=high - low,
            times_frozen=statistics.median(map(operator.truediv, times[name], floor)),
            over_ms=over[name],
            over_by_peft=by_peft,
            held_mib=held / MIB,
            input_mib=held_x / MIB,
            peak_mib=runner.peak_bytes() / MIB if on_cuda else None,
            rounds_ms=times[name],
        )
        rows.append(row)
    return rows


def print_rows(rows: list[Row]) -> None:
    names = ["params", "ms", "iqr", "x frozen", "over ms", "/ peft", "held MiB"]
    names += ["input MiB", "peak MiB"]
    print(f"  {'':14}" + "".join(f"{name:>11}" for name in names))
    for row in rows:
        cells = [f"{row.params:,}", f"{row.median_ms:.3f}", f"{row.iqr_ms:.3f}"]
        cells += [f"{row.times_frozen:.3f}", f"{row.over_ms:.3f}"]
        cells.append("-" if row.over_by_peft is None else f"{row.over_by_peft:.2f}")
        cells += [f"{row.held_mib:.1f}", f"{row.input_mib:.1f}"]
        cells.append("-" if row.peak_mib is None else f"{row.peak_mib:.1f}")
        print(f"  {row.contestant:14}" + "".join(f"{cell:>11}" for cell in cells))
    sys.stdout.flush()


def image_size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if not found or any(int(side) % DinoV2Encoder.patch_px for side in found.groups()):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not HEIGHTxWIDTH in multiples of {DinoV2Encoder.patch_px}, "
            "like 392x518"
        )
    return int(found[1]), int(found[2])


def regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
    return text


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def parse(arguments: list[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.adapter_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [contestant.name for contestant in CONTESTANTS]
    add = parser.add_argument
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--dtype", choices=["fp32", "bf16"], default="fp32")
    add("--compile", action="store_true", help="torch.compile every contestant")
    add("--threads", type=positive, help="CPU threads; torch's own number if left out")
    add("--rounds", type=positive, default=20, help="kept rounds, beside 2 dropped")
    add("--rank", type=positive, default=8)
    add("--batch", type=positive, default=1)
    add("--size", type=image_size, default=(392, 518), help="image, HEIGHTxWIDTH")
    add("--what", choices=get_args(What), default="all")
    add("--model", nargs="+", choices=get_args(Size), default=["S"])
    add("--only", nargs="+", choices=names, help="contestants; `frozen` always runs")
    add("--cases", type=regex, default="", help="regex searched in case names")
    add("--json", type=Path, help="write everything here, whole or not at all")
    return Options(**vars(parser.parse_args(arguments)))


def main() -> None:
    """Run the benchmark of the command line."""
    options = parse()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    if options.compile:
        # All contestants share the code of the network's forward: a graph for each.
        torch._dynamo.config.recompile_limit = 8 * len(CONTESTANTS)
    torch.manual_seed(0)
    on_cuda = options.device == "cuda"
    where = machine("peft", "lycoris_lora", "timm", on_cuda=on_cuda)
    for key, value in where.items():
        print(f"{key}: {value}")
    rows: list[Row] = []
    penalties: list[Penalty] = []
    for case in make_cases(options):
        case_rows, penalty = run(case, options)
        rows += case_rows
        penalties += [penalty] if penalty else []
    if not rows:
        raise SystemExit(f"--cases {options.cases} matches no case")
    if options.json is not None:
        content = {
            "machine": where,
            "options": asdict(options),
            "rows": [asdict(row) for row in rows],
            "penalties": [asdict(penalty) for penalty in penalties],
        }
        write_json(options.json, content)


if __name__ == "__main__":
    main()
