"""What many adapters in one batch cost, beside the frozen network and other ways.

    python -m benchmarks.many_adapters --threads 1 --methods Lava LoRA --adapters 1 32
    python -m benchmarks.many_adapters --what bank
    python -m benchmarks.many_adapters --what stress

Depth Anything S with random weights, float32, rank 8 (Fast LoRA 1); example i of the
batch has adapter i mod K. Everything runs in one process, one call each per round, in a
random order per round, in processor time: other programs on the machine wait for the
cores, but do not count. With `--device cuda` it is time by the clock, the device waited
for. What is printed is the median over the rounds of time / the
frozen network's time in that round, and the smallest and largest of them.

Ways, of a forward without gradients and of a training step (forward, and backward from
a fixed output gradient to all factors and to the class token beneath all blocks):
    frozen: no adapter.
    shared: one adapter for the whole batch.
    mixed K: K adapters, by `AdapterBank.select`.
    loop K: the network once for each adapter, with its examples.
    swap K: likewise, its merged weights copied into one network before (forward only).
    peft K: PEFT's `adapter_names`, LoRA (it wants eval mode, so that a step there is
        not one that PEFT offers).
`bank`: 1,000 adapters: memory, and milliseconds to add one and to select 32.
`stress`: 8 threads selecting for a minute while adapters come and go, each batch
compared with its examples alone.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

import models.adapters
from benchmarks.adapter_step import image_size, positive
from benchmarks.stopwatch import machine, write_json
from models.adapters import (
    AdapterBank,
    AdapterConfig,
    FastLoRA,
    SVDiff,
    is_never_trained,
)
from models.networks import DepthNetwork, NetworkSpec
from models.networks.presets import Size

MIB = 2**20
RANK = 8
Way = Callable[[Tensor], Tensor]


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    where = machine("peft", on_cuda=options.device == "cuda")
    for key, value in where.items():
        print(f"{key}: {value}")
    found: dict[str, object] = {"machine": where, "options": vars(options)}
    if options.what == "network":
        found["network"] = [row for m in options.methods for row in compare(m, options)]
    elif options.what == "bank":
        found["bank"] = fill(options)
    else:
        found["stress"] = stress(options)
    if options.json is not None:
        write_json(options.json, found)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.many_adapters",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--what", choices=["network", "bank", "stress"], default="network")
    add("--methods", nargs="+", default=["Lava"], help="of models.adapters")
    add("--adapters", nargs="+", type=positive, default=[1, 4, 8, 32], metavar="K")
    add("--modes", nargs="+", choices=["forward", "step"], default=["forward", "step"])
    add("--batch", type=positive, default=32)
    add("--size", type=image_size, default=(266, 350), help="image, HEIGHTxWIDTH")
    add("--rounds", type=positive, default=5)
    add("--threads", type=positive, default=1)
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--model", choices=["tiny", "S", "B", "L"], default="S")
    add("--beside", nargs="*", choices=["loop", "swap", "peft"], default=["peft"])
    add("--count", type=positive, default=1000, help="adapters of `bank`")
    add("--seconds", type=positive, default=60, help="of `stress`")
    add("--json", type=Path, help="write everything here, whole or not at all")
    return parser.parse_args()


def config_of(method: str) -> AdapterConfig:
    kind: type[AdapterConfig] = getattr(models.adapters, method)
    if kind is SVDiff:
        return SVDiff(train_fully=[])
    if kind is FastLoRA:
        return FastLoRA(train_fully=[])
    return kind(rank=RANK, train_fully=[])  # type: ignore[call-arg]


def network_and_bank(
    config: AdapterConfig, count: int, size: Size = "S", device: str = "cpu"
) -> tuple[DepthNetwork, AdapterBank]:
    torch.manual_seed(0)
    network = DepthNetwork(NetworkSpec(size, "v2", "metric", 10.0)).eval().to(device)
    bank = AdapterBank(network)
    for k in range(count):
        bank.adapt(f"a{k}", config)
    off_start(bank)
    return network, bank


@torch.no_grad()
def off_start(module: nn.Module) -> None:
    """No zeros: what is multiplied with them might be left out."""
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter), alpha=0.01)


def compare(method: str, options: argparse.Namespace) -> list[dict[str, object]]:
    """Time one method against the frozen network in one interleaved run."""
    network, bank = network_and_bank(
        config_of(method), max(options.adapters), options.model, options.device
    )
    x = torch.randn(options.batch, 3, *options.size, device=options.device)
    ways: dict[str, Way] = {"frozen": chosen(network, bank, None)}
    ways["shared"] = chosen(network, bank, "a0")
    for k in options.adapters:
        names = [f"a{i % k}" for i in range(options.batch)]
        ways[f"mixed {k}"] = chosen(network, bank, names)
        if "loop" in options.beside:
            ways[f"loop {k}"] = looped(network, bank, names)
        if "swap" in options.beside:
            ways[f"swap {k}"] = swapped(network, bank, names)
        if "peft" in options.beside and method == "LoRA":
            ways[f"peft {k}"] = by_peft(network, names)
    rows = []
    for mode in options.modes:
        calls = {
            name: called(way, mode, network, x)
            for name, way in ways.items()
            if mode == "forward" or not name.startswith("swap")
        }
        seconds = interleaved(calls, options.rounds, options.device)
        print(f"\n{method}, {mode}, batch {options.batch}, {options.size}")
        for name, times in seconds.items():
            pairs = zip(times, seconds["frozen"], strict=True)
            ratios = [own / floor for own, floor in pairs]
            middle = statistics.median(ratios)
            spread = f"{min(ratios):.3f}-{max(ratios):.3f}"
            seconds_each = f"{statistics.median(times):8.2f} s"
            print(f"  {name:10} {seconds_each}  x {middle:.3f}  {spread}", flush=True)
            rows.append({"method": method, "mode": mode, "way": name, "seconds": times})
    return rows


def chosen(network: nn.Module, bank: AdapterBank, names: str | list[str] | None) -> Way:
    def way(x: Tensor) -> Tensor:
        with bank.select(names):
            y: Tensor = network(x)
        return y

    return way


def device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def looped(network: nn.Module, bank: AdapterBank, names: list[str]) -> Way:
    rows = {n: torch.tensor([m == n for m in names]) for n in names}

    def way(x: Tensor) -> Tensor:
        outputs = []
        for name, own in rows.items():
            with bank.select(name):
                outputs.append(network(x[own]))
        return torch.cat(outputs)

    return way


def swapped(network: nn.Module, bank: AdapterBank, names: list[str]) -> Way:
    """One network, and each adapter's merged weights copied into it in turn."""
    rows = {n: torch.tensor([m == n for m in names]) for n in names}
    merged: dict[str, dict[str, Tensor]] = {}
    with torch.no_grad():
        for name in rows:
            with bank.select(name):
                layers = network.named_modules()
                merged[name] = {
                    f"{n}.weight": m.weight.clone()
                    for n, m in layers
                    if isinstance(m, models.adapters.adapted.AdaptedLayer)
                }
    plain = DepthNetwork(network.spec).eval().to(device_of(network))  # type: ignore[arg-type]
    plain.load_state_dict(network.state_dict())

    def way(x: Tensor) -> Tensor:
        outputs = []
        for name, own in rows.items():
            plain.load_state_dict(merged[name], strict=False)
            outputs.append(plain(x[own]))
        return torch.cat(outputs)

    return way


def by_peft(network: nn.Module, names: list[str]) -> Way:
    from peft import LoraConfig, PeftModel

    plain = DepthNetwork(network.spec).eval().to(device_of(network))  # type: ignore[arg-type]
    plain.load_state_dict(network.state_dict())
    plain.requires_grad_(False)
    targets = [
        name
        for name, module in network.named_modules()
        if isinstance(module, models.adapters.adapted.AdaptedLayer)
        and not is_never_trained(network, name)
    ]
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=targets)
    distinct = list(dict.fromkeys(names))
    model = PeftModel(plain, config, adapter_name=distinct[0])
    for name in distinct[1:]:
        model.add_adapter(name, config)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    off_start(model)
    model.eval()

    def way(x: Tensor) -> Tensor:
        y: Tensor = model(x, adapter_names=names)
        return y

    return way


def called(way: Way, mode: str, network: DepthNetwork, x: Tensor) -> Callable[[], None]:
    """One forward, or one training step."""
    bottom = network.pretrained.cls_token
    assert isinstance(bottom, nn.Parameter)

    def forward() -> None:
        with torch.no_grad():
            way(x)

    def step() -> None:
        # The class token lies beneath all blocks; another network's is its own.
        bottom.requires_grad_()
        y = way(x)
        torch.autograd.backward(y, torch.ones_like(y))
        bottom.grad = None
        bottom.requires_grad_(False)

    return forward if mode == "forward" else step


def interleaved(
    calls: dict[str, Callable[[], None]], rounds: int, device: str
) -> dict[str, list[float]]:
    """Seconds of each call in each round; the first round is dropped."""

    def now() -> float:
        if device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    seconds: dict[str, list[float]] = {name: [] for name in calls}
    order, shuffler = list(calls), random.Random(0)
    for i in range(rounds + 1):
        shuffler.shuffle(order)
        for name in order:
            start = now()
            calls[name]()
            if i:
                seconds[name].append(now() - start)
    return seconds


def fill(options: argparse.Namespace) -> dict[str, float]:
    """A bank of many: memory, and time to add and to select."""
    _, bank = network_and_bank(config_of("Lava"), 1)
    first = bank.opened("a0")
    before, added = resident(), []
    for k in range(1, options.count):
        tensors = {name: tensor.clone() for name, tensor in first.tensors.items()}
        start = time.process_time()
        bank.add(f"a{k}", replace(first, tensors=tensors))
        added.append(1e3 * (time.process_time() - start))
    grown, selected = resident() - before, []
    for i in range(200):
        names = [f"a{(7 * i + 31 * j) % options.count}" for j in range(32)]
        start = time.process_time()
        with bank.select(names):
            selected.append(1e3 * (time.process_time() - start))
    found = {
        "adapters": float(options.count),
        "adapters_mib": grown,
        "process_mib": resident(),
        "first_add_ms": added[0],
        "add_ms": statistics.median(added),
        "select_ms": statistics.median(selected),
    }
    for name, value in found.items():
        print(f"  {name}: {value:.2f}")
    return found


def resident() -> float:
    """MiB of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / MIB


def stress(options: argparse.Namespace) -> dict[str, float]:
    from tests.models.adapters.bank.test_bank import stress as run

    run(options.seconds)
    print(f"  {options.seconds} s, no batch differed from its examples alone")
    return {"seconds": float(options.seconds)}


if __name__ == "__main__":
    main()
