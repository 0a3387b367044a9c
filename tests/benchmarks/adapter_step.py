# ruff: noqa: T201  (a command line prints)
"""What a training step costs with each adapter, beside the frozen network's own.

    python -m tests.benchmarks.adapter_step --what layers --model S B --rounds 20
    python -m tests.benchmarks.adapter_step --what network --device cuda --dtype bf16

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
import copy
import json
import math
import operator
import os
import platform
import random
import re
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from models.adapters import adapted_layers, is_never_trained, orthogonality
from models.networks import DepthNetwork, NetworkSpec
from models.networks.encoder import PATCH_PX
from models.networks.presets import PRESETS
from tests.benchmarks.rivals import CONTESTANTS, FLOOR, our_config

Size = Literal["S", "B", "L"]
What = Literal["layers", "encoder", "network", "all"]

DROPPED_ROUNDS = 2
MIN_MEASURED_S = 0.01
"""Shorter steps are repeated within a measurement until it lasts this long."""
LAYER_TOLERANCE, NETWORK_TOLERANCE = 1e-4, 2e-2
"""Largest |a - b| / |b| of an output or gradient in float32; a wrong formula is off by
about 1. One ReLU that rounding turns on or off moves the gradients of a whole random
network by 1e-3."""
ROUNDING = 10.0
"""How many times the reference's own rounding in bf16 is allowed on top."""
CONVS = (  # of the head of L, S, B, S, L: in, out, stride, side of the input
    (256, 256, 1, 37),
    (64, 64, 1, 148),
    (128, 128, 1, 148),
    (64, 32, 1, 296),
    (1024, 1024, 2, 37),
)
MIB = 2**20


@dataclass(frozen=True)
class Options:
    """The command line."""

    device: Literal["cpu", "cuda"]
    dtype: Literal["fp32", "bf16"]
    compile: bool
    threads: int | None
    rounds: int
    rank: int
    batch: int
    size: tuple[int, int]
    what: What
    model: list[Size]
    only: list[str] | None
    cases: str
    json: Path | None

    def autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.dtype == "bf16")


@dataclass(frozen=True)
class Case:
    """A frozen network, the layers to adapt, its input and what backward must reach."""

    name: str
    network: nn.Module
    layers: list[str]
    x: Tensor
    bottom: Tensor
    whole: bool


class Encoder(nn.Module):
    """The ViT of a depth network, down to the four levels that its head reads."""

    def __init__(self, network: DepthNetwork) -> None:
        super().__init__()
        self.pretrained = network.pretrained
        self.taps = network.spec.preset.taps(network.spec.version)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.pretrained.taps(image, self.taps))


def make_cases(options: Options) -> Iterator[Case]:
    """The cases of `--what`, one at a time: each holds its own tensors."""
    parts = ["layers", "encoder", "network"]
    for part in parts if options.what == "all" else [options.what]:
        if part == "layers":
            yield from layer_cases(options)
            continue
        for size in options.model:
            name = f"{part} {size} {options.batch}x{'x'.join(map(str, options.size))}"
            if re.search(options.cases, name):
                yield network_case(options, name, size, encoder_only=part == "encoder")


def layer_cases(options: Options) -> Iterator[Case]:
    """Linear layers of the chosen encoders, and convolutions of the heads."""
    batch = options.batch
    tokens = math.prod(side // PATCH_PX for side in options.size)
    for size in options.model:
        dim = PRESETS[size].embed_dim
        kinds = {"qkv": (1, 3), "proj": (1, 1), "fc1": (1, 4), "fc2": (4, 1)}
        for kind, (i, o) in kinds.items():
            linear = nn.Linear(i * dim, o * dim)
            name = f"{size} {kind} {i * dim}->{o * dim} @{batch}x{tokens}"
            x = torch.randn(batch, tokens, i * dim)
            yield from _layer_case(options, name, linear, x)
    for i, o, stride, side in CONVS:
        conv = nn.Conv2d(i, o, 3, stride, padding=1)
        name = f"conv {i}->{o}{' s2' if stride == 2 else ''} @{batch}x{side}x{side}"
        x = torch.randn(batch, i, side, side)
        yield from _layer_case(options, name, conv, x)


def _layer_case(
    options: Options, name: str, layer: nn.Module, x: Tensor
) -> Iterator[Case]:
    if re.search(options.cases, name):
        network = nn.Sequential(layer).to(options.device).requires_grad_(False)
        x = x.to(options.device).requires_grad_()
        yield Case(name, network, ["0"], x, bottom=x, whole=False)


def network_case(
    options: Options, name: str, size: Size, *, encoder_only: bool
) -> Case:
    """Depth Anything v2 with random weights, or its encoder."""
    depth = DepthNetwork(NetworkSpec(size, "v2", "metric", 10.0)).to(options.device)
    depth.requires_grad_(False)
    network = Encoder(depth) if encoder_only else depth
    targets = re.compile("|".join(DepthNetwork.adapter_targets))
    layers = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and targets.search(name)
        and not is_never_trained(depth, name)
    ]
    x = torch.randn(options.batch, 3, *options.size, device=options.device)
    return Case(name, network, layers, x, depth.pretrained.cls_token, whole=True)


class Runner:
    """One contestant in one case: an adapted copy on the case's own frozen weights."""

    def __init__(
        self,
        case: Case,
        options: Options,
        network: nn.Module,
        trained: list[nn.Parameter],
    ) -> None:
        self.case, self.options = case, options
        self.network, self.trained = network, trained
        self.call = torch.compile(network) if options.compile else network
        self.seeds: list[Tensor] = []

    def forward(self) -> list[Tensor]:
        with self.options.autocast():
            return as_list(self.call(self.case.x))

    def prepare(self) -> None:
        """Compile, fix the output gradients, and see that every tensor gets one."""
        self.seeds = seeds_like(self.forward())
        self.step()
        for tensor in [self.case.bottom, *self.trained]:
            if tensor.grad is None or not tensor.grad.isfinite().all():
                raise RuntimeError(f"no finite gradient for a {tuple(tensor.shape)}")

    def step(self) -> None:
        self.case.bottom.grad = None
        for parameter in self.trained:
            parameter.grad = None
        torch.autograd.backward(self.forward(), self.seeds)

    def held_bytes(self) -> tuple[int, int]:
        """What autograd holds before backward: (other than the input, the input)."""
        held: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
            return tensor

        with saved_tensors_hooks(note, lambda tensor: tensor):
            outputs = self.forward()
        for own in [*self.network.parameters(), *self.network.buffers(), *self.trained]:
            held.pop(own.untyped_storage().data_ptr(), None)
        x = held.pop(self.case.x.untyped_storage().data_ptr(), 0)
        del outputs  # alive until here: a freed storage's address could come again
        return sum(held.values()), x

    def peak_bytes(self) -> int:
        self.step()
        for tensor in [self.case.bottom, *self.trained]:
            tensor.grad = None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self.step()
        return torch.cuda.max_memory_allocated() - before


def as_list(outputs: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def seeds_like(outputs: list[Tensor]) -> list[Tensor]:
    """The same random numbers at every call, in the outputs' dtypes."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(y.shape, generator=generator).to(y) for y in outputs]


def make_runners(case: Case, options: Options) -> dict[str, Runner]:
    """Adapt, check and warm up; a rival that fails is left out with a line."""
    runners: dict[str, Runner] = {}
    torch.compiler.reset()  # one case's graphs must not use up the next one's limit
    for contestant in CONTESTANTS:
        name = contestant.name
        if options.only and name not in [*options.only, FLOOR]:
            continue
        if not contestant.available:
            print(f"  {name}: not available")
            continue
        # Anew each time: `bottom` was switched on for the contestant before.
        case.network.requires_grad_(False)
        weights = {id(p): p for p in case.network.parameters()}
        network = copy.deepcopy(case.network, weights)  # shares the weights
        try:
            trained = contestant.attach(network, case.layers, options.rank)
            for parameter in trained:
                if not parameter.any():
                    nn.init.normal_(parameter, std=0.02)
            case.bottom.requires_grad_()
            runner = Runner(case, options, network, trained)
            runner.prepare()
        except Exception as error:
            if contestant.ours or name == FLOOR:
                raise
            print(f"  {name}: left out, {type(error).__name__}: {first_line(error)}")
            continue
        if contestant.ours:
            check(name, runner)
        runners[name] = runner
    return runners


def check(name: str, runner: Runner) -> None:
    """Outputs and all gradients against autograd through the dense adapted weight.

    The truth is float32. Rounding grows with depth, so what bf16 is allowed on top is
    measured: some times the error of that same reference under autocast.
    """
    case = runner.case
    tolerance = NETWORK_TOLERANCE if case.whole else LAYER_TOLERANCE
    tensors = [case.bottom, *runner.trained]

    def gradients(outputs: list[Tensor]) -> list[Tensor]:
        seeds = seeds_like(outputs)
        return outputs + list(torch.autograd.grad(outputs, tensors, seeds))

    def reference() -> list[Tensor]:
        weights = {
            f"{layer_name}.weight": layer.adapter.weight(layer.weight)
            for layer_name, layer in adapted_layers(runner.network)
        }
        y = torch.func.functional_call(case.network, weights, (case.x,))
        return gradients(as_list(y))

    truth = reference()
    with runner.options.autocast():
        rounded = reference()
    for ours, theirs, want in zip(
        gradients(runner.forward()), rounded, truth, strict=True
    ):
        error, allowed = relative_error(ours, want), relative_error(theirs, want)
        allowed = tolerance + ROUNDING * allowed
        if not error <= allowed:
            raise AssertionError(
                f"{name} in {case.name}: an output or gradient {tuple(want.shape)} is "
                f"off by {error:.1e} from autograd through the dense adapted weight, "
                f"where {allowed:.1e} is allowed; this case was not timed"
            )


def relative_error(got: Tensor, want: Tensor) -> float:
    error: float = ((got.float() - want).norm() / want.norm()).item()
    return error


def measure(
    steps: dict[str, Callable[[], None]], options: Options
) -> dict[str, list[float]]:
    """Milliseconds per step and round, interleaved, in a random order per round."""
    timed = cuda_ms if options.device == "cuda" else cpu_ms
    timed(steps[FLOOR], 1)
    repeats = math.ceil(1e3 * MIN_MEASURED_S / timed(steps[FLOOR], 1))
    order, shuffler = list(steps), random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(DROPPED_ROUNDS + options.rounds):
        shuffler.shuffle(order)
        for name in order:
            ms = timed(steps[name], repeats)
            if i >= DROPPED_ROUNDS:
                times[name].append(ms)
    return times


def cpu_ms(step: Callable[[], None], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return 1e3 * (time.perf_counter() - start) / repeats


def cuda_ms(step: Callable[[], None], repeats: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        step()
    end.record()
    end.synchronize()
    elapsed: float = start.elapsed_time(end)
    return elapsed / repeats


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
    times = measure(steps, options)
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


def quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


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


def machine(options: Options) -> dict[str, str | int | float | None]:
    """Where and with what the numbers were made."""
    versions: dict[str, str | None] = {}
    for package in ("peft", "lycoris_lora", "timm"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    gpu = torch.cuda.get_device_name() if options.device == "cuda" else None
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]]),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_at_start": os.getloadavg()[0],
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **versions,
    }


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        found = re.search(r"model name\s*:\s*(.+)", info.read_text())
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]


def image_size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if not found or any(int(side) % PATCH_PX for side in found.groups()):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not HEIGHTxWIDTH in multiples of {PATCH_PX}, like 392x518"
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
        "python -m tests.benchmarks.adapter_step",
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


def write_json(path: Path, content: Mapping[str, object]) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(content, indent=1, default=str) + "\n")
    part.replace(path)


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
    where = machine(options)
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
