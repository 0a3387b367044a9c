"""The contestants of `adapter_step`: each adapts named layers of a network in place.

The adapters of this project, those of PEFT and LyCORIS through their own classes, and
the way of the FLoRA repository, re-derived. Nobody uses dropout; alpha equals the rank.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import models.adapters
from models.adapters import AdapterConfig, adapt

Attach = Callable[[nn.Module, list[str], int], list[nn.Parameter]]
"""(network, names of the layers, rank) -> what it made trainable."""

TUCKER_KERNEL_RANK = 2
"""Rank of kernel axes in the FLoRA repository's example, `r=[16, 16, 2, 2]`."""


@dataclass(frozen=True)
class Contestant:
    """A way to adapt a network.

    Attributes:
        name: What `--only` and the table call it.
        attach: Adapts a network in place.
        twin: The PEFT method whose overhead it is compared with.
        package: What must be installed; empty for none.
        ours: Name of the config class in `models.adapters`; empty for rivals.
    """

    name: str
    attach: Attach
    twin: str = "peft-lora"
    package: str = ""
    ours: str = ""

    @property
    def available(self) -> bool:
        if self.ours:
            return hasattr(models.adapters, self.ours)
        return not self.package or find_spec(self.package) is not None


def our_config(method: str, names: list[str], rank: int) -> AdapterConfig:
    """Options of our method that adapt exactly these layers."""
    pattern = f"^({'|'.join(map(re.escape, names))})$"
    make = getattr(models.adapters, method)
    config: AdapterConfig = make(rank=rank, targets=[pattern], train_fully=[])
    return config


def ours(
    method: str, network: nn.Module, names: list[str], rank: int
) -> list[nn.Parameter]:
    """An adapter of this project."""
    assert list(adapt(network, our_config(method, names, rank))) == names
    return _trainable(network)


def nobody(network: nn.Module, names: list[str], rank: int) -> list[nn.Parameter]:
    """The floor: no adapter."""
    return []


def peft(
    use_dora: bool, network: nn.Module, names: list[str], rank: int
) -> list[nn.Parameter]:
    """PEFT's LoRA or DoRA through its public injection."""
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    config = LoraConfig(
        r=rank, lora_alpha=rank, use_dora=use_dora, target_modules=list(names)
    )
    inject_adapter_in_model(config, network)
    adapted = [n for n, m in network.named_modules() if isinstance(m, LoraLayer)]
    assert adapted == names, "PEFT chose other layers"
    return _trainable(network)


def lycoris(
    bypass: bool, network: nn.Module, names: list[str], rank: int
) -> list[nn.Parameter]:
    """LyCORIS LoCon, Tucker for kernels; `bypass` never forms dW, the default does.

    Its modules are made one by one, as `create_lycoris` does inside: that one selects
    layers by class names kept in class attributes, for the whole process.
    """
    from lycoris.modules.locon import LoConModule

    parameters: list[nn.Parameter] = []
    for name in names:
        layer = network.get_submodule(name)
        module = LoConModule(
            name.replace(".", "_"),
            layer,
            lora_dim=rank,
            alpha=rank,
            use_tucker=True,
            bypass_mode=bypass,
        ).to(layer.weight.device)
        module.apply_to()  # replaces layer.forward, which keeps the module alive
        parameters += module.parameters()
    return parameters


class SecondLayer(nn.Module):
    """base(x) + op(x, dW), with dW formed in every step from Tucker factors.

    dW = core x1 U1 x2 U2 ... over the axes of the stored weight (Si et al., FLoRA,
    2024, equation 3; initialisation as in its repository). It costs a second full-size
    layer and a dense weight gradient: what the other ways avoid.
    """

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int) -> None:
        super().__init__()
        self.base = base
        shape, device = base.weight.shape, base.weight.device
        ranks = [min(rank, size) for size in shape[:2]]
        ranks += [min(TUCKER_KERNEL_RANK, size) for size in shape[2:]]
        self.core = nn.Parameter(torch.zeros(ranks, device=device))
        self.factors = nn.ParameterList(
            nn.init.kaiming_normal_(torch.empty(n, r, device=device), a=math.sqrt(3))
            for n, r in zip(shape, ranks, strict=True)
        )

    def delta(self) -> Tensor:
        delta: Tensor = self.core
        for factor in self.factors:
            # Takes the first axis away and puts the full one at the end: after all
            # factors the axes are in their order again.
            delta = torch.tensordot(delta, factor, dims=([0], [1]))
        return delta

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            delta = self.delta()  # tensordot's backward cannot mix dtypes
        y: Tensor = self.base(x)
        if isinstance(self.base, nn.Linear):
            return y + F.linear(x, delta)
        second: Tensor = self.base._conv_forward(x, delta, None)
        return y + second


def second_layer(network: nn.Module, names: list[str], rank: int) -> list[nn.Parameter]:
    """`SecondLayer` in place of each layer."""
    for name in names:
        parent, _, child = name.rpartition(".")
        base = network.get_submodule(name)
        assert isinstance(base, nn.Linear | nn.Conv2d)
        setattr(network.get_submodule(parent), child, SecondLayer(base, rank))
    return _trainable(network)


FLOOR = "frozen"
CONTESTANTS = (
    Contestant(FLOOR, nobody),
    Contestant("lava", partial(ours, "Lava"), ours="Lava"),
    Contestant("lora", partial(ours, "LoRA"), ours="LoRA"),
    Contestant("dora", partial(ours, "DoRA"), twin="peft-dora", ours="DoRA"),
    Contestant("tucker", partial(ours, "Tucker"), ours="Tucker"),
    Contestant("peft-lora", partial(peft, False), package="peft"),
    Contestant("peft-dora", partial(peft, True), twin="peft-dora", package="peft"),
    Contestant("lycoris", partial(lycoris, False), package="lycoris"),
    Contestant("lycoris-bypass", partial(lycoris, True), package="lycoris"),
    Contestant("second-layer", second_layer),
)


def _trainable(network: nn.Module) -> list[nn.Parameter]:
    return [p for p in network.parameters() if p.requires_grad]
