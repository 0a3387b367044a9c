"""Weighted sums of adapters, exact because ranks are concatenated."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.adapters.base import AdapterError, Bottleneck
from models.adapters.inject import adapt, adapted_layers, adapters
from models.adapters.layers import shape_of
from models.adapters.methods.lora import LoRA
from models.adapters.trained import adapters_own, trained_tensors


@dataclass(frozen=True)
class Increments:
    """What an adapter adds to its base, free of the method that it was learnt with."""

    layers: Mapping[str, Bottleneck]
    """Layer name to the increment of its weight."""
    whole: Mapping[str, Tensor]
    """State-dict name to the value of what was trained in full, and of statistics."""


@torch.no_grad()
def increments(network: nn.Module) -> Increments:
    """Copy the increments of an adapted network.

    Raises:
        AdapterError: For DoRA and SVDiff, whose effect is not a sum of thin products,
            and for adapted bare parameters.
    """
    layers: dict[str, Bottleneck] = {}
    for name, layer in adapted_layers(network):
        thin = layer.adapter.bottleneck()
        if thin is None or layer.adapter.gain(layer.base_weight) is not None:
            raise AdapterError(
                f"{name} has a {type(layer.adapter).__name__}, which is not a sum of "
                "thin products; merge the networks and average their weights instead"
            )
        down, up = thin.dense_down().clone(), thin.up.clone()
        layers[name] = Bottleneck(down, up, thin.scale)
    if len(layers) != sum(1 for _ in adapters(network)):
        raise AdapterError("adapted bare parameters cannot be combined; merge them")
    own = adapters_own(network)
    whole = {
        name: tensor.detach().clone()
        for name, tensor in trained_tensors(network).items()
        if id(tensor) not in own
    }
    return Increments(layers, whole)


@torch.no_grad()
def weighted(network: nn.Module, parts: Sequence[tuple[Increments, float]]) -> LoRA:
    """Adapt a plain network with a weighted sum of adapters, in place.

    dW = sum_k w_k dW_k exactly: the thin factors of all parts stand side by side.
    Adding `up` to `up` and `down` to `down`, as PEFT's "linear" does, is another
    thing. Layers that a part trained in full move by w_k of their way from the base,
    and so do running statistics; those layers count as trained in full again.

    Args:
        network: The base, without adapters.
        parts: From `increments`, and their weights, which may be negative.

    Returns:
        The configuration of the adapter that the network now has, a LoRA with a rank
        of its own in every layer.

    Raises:
        AdapterError: If no part has an adapted layer, or one has layers that the
            network has not.
    """
    names = list(dict.fromkeys(name for part, _ in parts for name in part.layers))
    if not names:
        raise AdapterError("there is nothing to combine: no part has an adapted layer")
    modules = dict(network.named_modules())
    unknown = [name for name in names if name not in modules]
    if unknown:
        raise AdapterError(f"the network has no layer {unknown[0]}; give the same base")
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    for name in names:
        found = [(part.layers[name], w) for part, w in parts if name in part.layers]
        down = torch.cat([thin.down for thin, _ in found])
        up = torch.cat([w * thin.scale * thin.up for thin, w in found], dim=1)
        factors[name] = _at_most_full_rank(down, up, shape_of(modules[name]).max_rank)
    plain = network.state_dict(keep_vars=True)
    moved = {
        name: _moved(name, plain[name].detach(), parts)
        for name in dict.fromkeys(name for part, _ in parts for name in part.whole)
    }
    # Statistics of frozen layers move, too, but that does not make them trained.
    whole = {n.rpartition(".")[0] for n in moved if isinstance(plain[n], nn.Parameter)}

    exact = {name: f"^{re.escape(name)}$" for name in names}
    config = LoRA(
        rank=1,
        targets=list(exact.values()),
        train_fully=[f"^{re.escape(name)}$" for name in sorted(whole)],
        rank_pattern={exact[name]: len(down) for name, (down, _) in factors.items()},
    )
    # alpha null means alpha = rank: the factors carry the whole scale.
    adapt(network, config)
    for name, layer in adapted_layers(network):
        down, up = factors[name]
        layer.adapter.get_parameter("down").copy_(down)
        layer.adapter.get_parameter("up").copy_(up)
    state = network.state_dict(keep_vars=True)
    for name, value in moved.items():
        state[name].copy_(value)
    return config


def _moved(
    name: str, base: Tensor, parts: Sequence[tuple[Increments, float]]
) -> Tensor:
    """base + sum_k w_k (value_k - base), whole numbers rounded."""
    wide = torch.promote_types(base.dtype, torch.float32)
    moved = base.to(wide, copy=True)
    for part, w in parts:
        if name in part.whole:
            moved += w * (part.whole[name].to(moved) - base)
    return moved if base.is_floating_point() else moved.round()


def _at_most_full_rank(
    down: Tensor, up: Tensor, full_rank: int
) -> tuple[Tensor, Tensor]:
    """The same product with no more than `full_rank` terms."""
    if len(down) <= full_rank:
        return down, up
    matrix = up @ down.flatten(1)
    if len(up) <= matrix.shape[1]:
        eye = torch.eye(len(up), device=up.device, dtype=up.dtype)
        return matrix.view(len(up), *down.shape[1:]), eye
    inner = matrix.shape[1]
    eye = torch.eye(inner, device=up.device, dtype=up.dtype)
    return eye.view(inner, *down.shape[1:]), matrix
