"""Which optimisers are compared, each made of the groups that training makes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch.optim import SGD, Adafactor, AdamW, Optimizer

from models.optimisers import Flora
from models.optimisers.adafactor import View
from models.optimisers.projections import Base, Projection

Groups = Iterable[dict[str, Any]]
GALORE_RANK = 32


@dataclass(frozen=True)
class Contestant:
    """One optimiser with its options; rates and decay come with the groups."""

    title: str
    make: Callable[[Groups], Optimizer]
    first_rate: float
    """Where climbing the grid begins."""
    needs: str | None = None
    """Package without which it is left out."""
    note: str = ""
    reads_values: bool = False
    """Its step asks tensors for numbers, and cannot be counted without having them."""

    @property
    def available(self) -> bool:
        return self.needs is None or find_spec(self.needs) is not None


def galore(groups: Groups) -> Optimizer:
    """Matrices projected as its README has it, the rest by its plain AdamW."""
    from galore_torch import GaLoreAdamW

    options = {"rank": GALORE_RANK, "update_proj_gap": 200, "scale": 0.25}
    made: list[dict[str, Any]] = []
    for group in groups:
        matrices: list[Any] = []
        rest: list[Any] = []
        for name, parameter in group["params"]:
            large = parameter.ndim == 2 and min(parameter.shape) > GALORE_RANK
            (matrices if large else rest).append((name, parameter))
        if matrices:
            made.append(group | options | {"proj_type": "std", "params": matrices})
        if rest:
            made.append(group | {"params": rest})
    optimizer: Optimizer = GaLoreAdamW(made, no_deprecation_warning=True)
    return optimizer


def adamw_8bit(groups: Groups) -> Optimizer:
    from torchao.optim import AdamW8bit

    # Its step is compiled for every shape, which takes minutes on a CPU.
    torch.compiler.set_stance("force_eager")
    optimizer: Optimizer = AdamW8bit(groups)
    return optimizer


class CompressedAccumulation(Flora):
    """Flora on gradients that were accumulated in the compressed space.

    Compressing is linear: the sum of compressed gradients is the compressed sum, and
    what the optimiser sees is P P^T G with a new P each step. So the effect on training
    is had by compressing the gradient of the whole batch, whatever it was made of.
    """

    accumulated_in: Projection = "orthonormal"

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            named = zip(group["param_names"], group["params"], strict=True)
            for name, parameter in named:
                if parameter.grad is not None:
                    self.compress(name, parameter, group["rank"])
        super().step()
        return loss

    def compress(self, name: str, parameter: torch.Tensor, rank: int) -> None:
        view = View.of(parameter.shape, rank)
        if not view.rank:
            return
        assert parameter.grad is not None
        taken = self.state[parameter].get("step", 0)
        side = min(view[:2])
        base = Base(self.accumulated_in, 1, taken, side, rank)
        p = base.draw()[base.rows_of(name)].to(parameter.grad)
        whole = parameter.grad.view(view[:2])
        projected = p @ (p.mT @ whole) if view.rows < view.cols else whole @ p @ p.mT
        parameter.grad = projected.view(parameter.shape)


class GaussianAccumulation(CompressedAccumulation):
    """The same with the paper's projection."""

    accumulated_in = "gaussian"


def flora(rank: int, projection: Projection = "orthonormal", **more: Any) -> Contestant:
    title = f"Flora {rank}" + ("" if projection == "orthonormal" else ", Gaussian")
    title += "".join(f", {name} {value}" for name, value in more.items())
    make = partial(Flora, rank=rank, projection=projection, **more)
    return Contestant(title, make, 3e-3)


CONTESTANTS = {
    "adamw": Contestant("AdamW", AdamW, 1e-3),
    "sgd": Contestant("SGD, momentum 0.9", partial(SGD, momentum=0.9), 1e-1),
    "adafactor": Contestant("Adafactor (torch)", Adafactor, 3e-2, reads_values=True),
    "galore": Contestant(
        f"GaLore {GALORE_RANK}",
        galore,
        1e-3,
        needs="galore_torch",
        note="galore-torch 1.0; convolutions by its plain AdamW",
    ),
    "adamw8bit": Contestant(
        "AdamW, 8 bit",
        adamw_8bit,
        1e-3,
        needs="torchao",
        note="torchao; its step not compiled, so that its time says nothing",
        reads_values=True,
    ),
    "flora8": flora(8),
    "flora8_gaussian": flora(8, "gaussian"),
    "flora16": flora(16),
    "flora32": flora(32),
    "flora32_gaussian": flora(32, "gaussian"),
    "flora128": flora(128),
    "flora128_gaussian": flora(128, "gaussian"),
    "flora32_kappa20": flora(32, kappa=20),
    "flora32_gaussian_kappa20": flora(32, "gaussian", kappa=20),
    "flora32_accumulated": Contestant(
        "Flora 32, gradients in rank 32",
        partial(CompressedAccumulation, rank=32),
        3e-3,
        note="as if accumulated in the compressed space",
    ),
    "flora32_accumulated_gaussian": Contestant(
        "Flora 32, gradients in rank 32, Gaussian",
        partial(GaussianAccumulation, rank=32),
        3e-3,
        note="likewise, by the paper's projection",
    ),
}
