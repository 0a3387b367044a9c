"""One contestant in one case of `adapter_step`, checked before it is timed."""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from benchmarks.rivals import CONTESTANTS, FLOOR
from benchmarks.step_cases import Case, Options
from models.adapters import adapted_layers

LAYER_TOLERANCE, NETWORK_TOLERANCE = 1e-4, 2e-2
"""Largest |a - b| / |b| of an output or gradient in float32; a wrong formula is off by
about 1. One ReLU that rounding turns on or off moves the gradients of a whole random
network by 1e-3."""


ROUNDING = 2.0
"""How many times the reference's own rounding in bf16 is allowed on top."""


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
        held = held_storages(self.forward)
        for own in [*self.network.parameters(), *self.network.buffers(), *self.trained]:
            held.pop(own.untyped_storage().data_ptr(), None)
        x = held.pop(self.case.x.untyped_storage().data_ptr(), 0)
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


def held_storages(forward: Callable[[], object]) -> dict[int, int]:
    """Address and bytes of every storage that autograd holds before backward."""
    held: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = forward()
    del outputs  # alive until here: a freed storage's address could come again
    return held


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

    In float32 each by itself. As they are timed, all together: in bf16 a small gradient
    is often nothing but rounding, and what is allowed is measured by that of the same
    reference under autocast.
    """
    case = runner.case
    tolerance = NETWORK_TOLERANCE if case.whole else LAYER_TOLERANCE
    tensors = [case.bottom, *runner.trained]

    def gradients(outputs: list[Tensor]) -> list[Tensor]:
        seeds = seeds_like(outputs)
        return outputs + list(torch.autograd.grad(outputs, tensors, seeds))

    def reference() -> list[Tensor]:
        weights = {
            f"{layer_name}.weight": layer.weight
            for layer_name, layer in adapted_layers(runner.network)
        }
        y = torch.func.functional_call(case.network, weights, (case.x,))
        return gradients(as_list(y))

    truth = reference()
    plain = gradients(as_list(runner.network(case.x)))
    for ours, want in zip(plain, truth, strict=True):
        what = f"an output or gradient {tuple(want.shape)}"
        compare(f"{name} in {case.name}: {what}", [ours], [want], tolerance)
    with runner.options.autocast():
        rounding = relative_error(reference(), truth)
    timed = gradients(runner.forward())
    allowed = tolerance + ROUNDING * rounding
    compare(f"{name} in {case.name}: all of it, as timed,", timed, truth, allowed)


def compare(what: str, ours: list[Tensor], truth: list[Tensor], allowed: float) -> None:
    error = relative_error(ours, truth)
    if not error <= allowed:
        raise AssertionError(
            f"{what} is off by {error:.1e} from autograd through the dense adapted "
            f"weight, where {allowed:.1e} is allowed; this case was not timed"
        )


@torch.no_grad()
def relative_error(got: list[Tensor], want: list[Tensor]) -> float:
    """|a - b| / |b| of all numbers together."""
    pairs = [(g.float(), w.float()) for g, w in zip(got, want, strict=True)]
    off = sum(float((g - w).square().sum()) for g, w in pairs)
    return math.sqrt(off / sum(float(w.square().sum()) for _, w in pairs))


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]
