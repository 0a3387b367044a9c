"""Bytes that a training step has alive, counted storage by storage.

Under `FakeTensorMode` nothing is computed or allocated, so that the step of a network
that no machine here holds can be counted: every tensor that forward, loss, backward and
optimiser make, from when it is made until nothing refers to it. Not counted: workspace
within an operation, an allocator's fragments, the device's own context. Autocast is the
CPU's, which keeps resized maps in float32 where a GPU keeps bfloat16.
"""

import contextlib
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.optimising.contestants import CONTESTANTS
from benchmarks.optimising.training import held_tensors
from models.adapters import is_never_trained
from models.networks import DepthNetwork, NetworkSpec
from models.networks.presets import Size
from models.optimisation import Optimisation

SCHEDULED_STEPS = 100
"""Of the schedule beside the optimiser; its length costs nothing."""


class Alive(TorchDispatchMode):
    """Counts the bytes of storages that are alive, and the most there were."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self.known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        self.see(leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor))
        return found

    def see(self, tensors: Iterable[Tensor]) -> None:
        """Count what is not known yet."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage not in self.known:
                self.known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self.forget, storage.nbytes())
        self.most = max(self.most, self.now)

    def forget(self, nbytes: int) -> None:
        self.now -= nbytes


@contextlib.contextmanager
def whole_network(size: Size, *, fake: bool = True) -> Iterator[DepthNetwork]:
    """A block with a metric network to be trained whole, of arbitrary numbers."""
    with torch.device("meta"):
        network = DepthNetwork(NetworkSpec(size, max_depth=1.0))
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode if fake else contextlib.nullcontext():
        yield trained_whole(network.to_empty(device="cpu"))


def trained_whole(network: DepthNetwork) -> DepthNetwork:
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not is_never_trained(network, name))
    return network


@dataclass(frozen=True)
class Pass:
    """Bytes of forward and backward."""

    weights: int
    kept: int
    """By autograd for backward, beyond weights."""
    most: int
    """At any moment, weights and gradients included."""
    gradients: int


def pass_bytes(
    size: Size,
    batch: int,
    image_size: tuple[int, int],
    *,
    checkpointed: bool,
    bf16: bool,
    fake: bool = True,
) -> Pass:
    """What forward, loss and backward have alive on a batch of which all is known."""
    with whole_network(size, fake=fake) as network:
        if checkpointed:
            network.checkpoint_gradients()
        alive = Alive()
        alive.see([*network.parameters(), *network.buffers()])
        weights = alive.now
        image = torch.randn(batch, 3, *image_size)
        target = torch.rand(batch * image_size[0] * image_size[1])
        with alive:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                # SiLog where every pixel is known: choosing pixels needs their values.
                error = network(image).flatten().log() - target.log()
                spread = error.square().mean() - 0.85 * error.mean().square()
                loss = spread.sqrt()
                del error, spread
            kept = alive.now - weights
            loss.backward()
            del loss
            gradients = sum(
                p.grad.nbytes for p in network.parameters() if p.grad is not None
            )
            return Pass(weights, kept, alive.most, gradients)


@dataclass(frozen=True)
class Step:
    """Bytes of an optimiser."""

    state: int
    """Between steps."""
    beside: int
    """At most during a step, beside weights, gradients and state."""


def step_bytes(size: Size, name: str, *, fake: bool = True) -> Step:
    """What a contestant's second step has alive: the first one makes the state."""
    make: Any = CONTESTANTS[name].make
    with whole_network(size, fake=fake) as network:
        optimisation = Optimisation(head_lr=1e-3, optimizer=make)
        optimizer, _ = optimisation.make(network, SCHEDULED_STEPS)
        trained = [p for p in network.parameters() if p.requires_grad]
        for parameter in trained:
            parameter.data.zero_()
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        alive = Alive()
        alive.see([*trained, *(p.grad for p in trained if p.grad is not None)])
        before = alive.now
        alive.see(held_tensors(optimizer))
        state = alive.now - before
        with alive:
            optimizer.step()
        return Step(state, alive.most - before - state)
