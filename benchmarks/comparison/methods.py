"""Who is compared: options of each method, at a rank or at the ranks a budget buys."""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from models.adapters import (
    AdapterConfig,
    DoRA,
    Lava,
    LoRA,
    SVDiff,
    TrainFully,
    Tucker,
    adapters,
    is_never_trained,
)
from models.adapters.base import WeightShape
from models.adapters.layers import ADAPTED, shape_of
from models.adapters.methods.lava import LavaAdapter
from models.adapters.methods.low_rank import LowRankConfig
from models.networks import DepthNetwork, NetworkSpec
from models.networks.presets import Size
from models.optimisers import Flora

TARGETS = DepthNetwork(NetworkSpec("tiny", max_depth=1.0)).adapter_targets
"""Of any size."""
ENCODER = tuple(p for p in TARGETS if p.startswith("^pretrained"))
DECODER = tuple(p for p in TARGETS if p not in ENCODER)
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Method:
    """One contestant."""

    title: str
    config: AdapterConfig | None
    """Options but for the ranks; None trains every weight."""
    trained: bool = True
    """False: nothing is trained by gradient, and there is no rate to choose."""
    restart: Callable[[nn.Module], None] | None = None
    """Another initialisation, put in place of the method's own."""
    optimizer: Callable[[Iterable[Any]], Optimizer] = AdamW

    @property
    def has_rank(self) -> bool:
        return isinstance(self.config, LowRankConfig)


@torch.no_grad()
def uniform_factors(network: nn.Module) -> None:
    """Lava's `down` and kernel factors as LoRA's: U(+-1/sqrt(size))."""
    for _, adapter in adapters(network):
        assert isinstance(adapter, LavaAdapter)
        for factor in (adapter.down, *adapter.kernel):
            bound = 1 / math.sqrt(factor.shape[1])
            factor.uniform_(-bound, bound)


@torch.no_grad()
def unit_gaussian(network: nn.Module) -> None:
    """Lava's `down` with unit rows that are independent, not orthogonal."""
    for _, adapter in adapters(network):
        assert isinstance(adapter, LavaAdapter)
        adapter.down.copy_(
            nn.functional.normalize(torch.randn_like(adapter.down), dim=1)
        )


NOTHING = TrainFully(train_fully=[r"^depth_head\.scratch\.output_conv2\.2$"])

METHODS: dict[str, Method] = {
    "unadapted": Method("un-adapted", NOTHING, trained=False),
    "calibrated": Method("scale and shift only", NOTHING, trained=False),
    "last_conv": Method("last convolution only", NOTHING),
    "head": Method("head only", TrainFully(train_fully=[r"^depth_head$"])),
    "lora_encoder": Method("LoRA, encoder", LoRA(targets=ENCODER)),
    "lora": Method("LoRA, encoder + decoder", LoRA()),
    "lora_orthogonal": Method("LoRA + orthogonal", LoRA(orthogonal="both")),
    "dora": Method("DoRA", DoRA()),
    "tucker": Method("Tucker-FLoRA, s = 4", Tucker()),
    "tucker_1": Method("Tucker-FLoRA, s = 1", Tucker(alpha=1.0)),
    "svdiff": Method("SVDiff", SVDiff()),
    "lava": Method("Lava, orthogonal both", Lava()),
    "lava_paper": Method("Lava, orthogonal paper", Lava(orthogonal="paper")),
    "lava_offdiag": Method("Lava, orthogonal offdiag", Lava(orthogonal="offdiag")),
    "lava_none": Method("Lava, orthogonal none", Lava(orthogonal="none")),
    "full": Method("full fine-tuning", None),
    "full_flora": Method(
        "full fine-tuning by Flora, rank 16", None, optimizer=partial(Flora, rank=16)
    ),
}
"""The rows of the main table."""

VARIANTS: dict[str, Method] = {
    **{
        f"lava weight {weight:g}": Method(
            f"penalty weight {weight:g}", Lava(orthogonal_weight=weight)
        )
        for weight in (0.001, 0.01, 1.0)
    },
    **{
        f"lava s {s:g}": Method(f"s = {s:g}", Lava(rank=1, alpha=s))
        for s in (0.25, 0.5, 2.0, 4.0)
    },
    "lava uniform": Method(
        "in factors uniform, as LoRA's", Lava(), restart=uniform_factors
    ),
    "lava unit": Method(
        "in factors of unit length, not orthogonal", Lava(), restart=unit_gaussian
    ),
    "lava uniform none": Method(
        "the same, no penalty", Lava(orthogonal="none"), restart=uniform_factors
    ),
    "lava encoder": Method("encoder only", Lava(targets=ENCODER)),
    "lava decoder": Method("decoder only", Lava(targets=DECODER)),
    "lora s 2": Method("LoRA, s = 2", LoRA(rank=1, alpha=2)),
}
"""What else is tried, one change each."""

CONTESTANTS = METHODS | VARIANTS


def shapes(size: Size, config: AdapterConfig) -> dict[str, WeightShape]:
    """Name and weight of every layer that a configuration adapts."""
    with torch.device("meta"):
        network = DepthNetwork(NetworkSpec(size, max_depth=1.0))
    targets = config.targets
    patterns = TARGETS if targets is None else targets
    return {
        name: shape_of(module)
        for name, module in network.named_modules()
        if type(module) in ADAPTED
        and any(re.search(pattern, name) for pattern in patterns)
        and not is_never_trained(network, name)
    }


def at_rank(config: LowRankConfig, size: Size, rank: int) -> LowRankConfig:
    """The same rank in every layer, or all that a smaller one can have."""
    return with_ranks(
        config, {n: min(rank, s.max_rank) for n, s in shapes(size, config).items()}
    )


def at_budget(config: LowRankConfig, size: Size, budget: int) -> LowRankConfig:
    """Ranks as equal as can be for at most `budget` numbers.

    Every layer's rank is raised by one in turn as long as the budget holds, so ranks
    differ by at most one (where a layer can have it). The turns follow the multiples
    of the golden ratio, which spread the layers of an unfinished round evenly over
    the depth of the network and over the kinds of layer.
    """
    layers = shapes(size, config)
    names = list(layers)
    turns = sorted(range(len(names)), key=lambda i: (i * GOLDEN) % 1)
    ranks = dict.fromkeys(names, 0)

    def cost(name: str, rank: int) -> int:
        return replace(config, rank=rank).count(layers[name]) if rank else 0

    left, full_round = budget, True
    while full_round:
        raised = 0
        for i in turns:
            name, rank = names[i], ranks[names[i]]
            if rank == layers[name].max_rank:
                continue
            more = cost(name, rank + 1) - cost(name, rank)
            if more > left:
                full_round = False
                continue
            ranks[name], left, raised = rank + 1, left - more, raised + 1
        full_round = full_round and raised > 0
    return with_ranks(config, ranks)


def with_ranks(config: LowRankConfig, ranks: dict[str, int]) -> LowRankConfig:
    """Each layer's own rank, none where it is 0; the scale s stays as it is."""
    chosen = {f"^{re.escape(name)}$": rank for name, rank in ranks.items() if rank}
    # Tucker's scale is absolute, and without an alpha s is 1 at any rank.
    scaled = config.alpha is not None and not isinstance(config, Tucker)
    alphas = {name: config.scale * rank for name, rank in chosen.items()}
    return replace(
        config,
        targets=list(chosen),
        rank_pattern=chosen,
        alpha_pattern=alphas if scaled else {},
    )
