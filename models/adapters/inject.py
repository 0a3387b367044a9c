"""Put adapters into a network, switch them off, fold them in, take that back."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import parametrize

from models.adapters.base import Adapter, AdapterConfig, AdapterError
from models.adapters.layers import (
    ADAPTED,
    AdaptedLayer,
    AdaptedParameter,
    attach,
    attach_parameter,
    detach,
    put,
)


def adapt(network: nn.Module, config: AdapterConfig) -> tuple[str, ...]:
    """Freeze a network and give its target layers adapters, in place.

    A network may suggest what to adapt by three attributes, each a sequence of
    regular expressions: `adapter_targets`, `fully_trained`, and `never_trained` for
    parameters that its `forward` does not read.

    Args:
        network: Any module; `ADAPTED` lists the layers that can be targets.
        config: The method and its options.

    Returns:
        The names of the adapted layers and parameters.

    Raises:
        AdapterError: If the network has adapters already, a pattern matches nothing,
            or the options do not fit a layer. The network is unchanged then.
    """
    if any(True for _ in adapters(network)):
        raise AdapterError("the network has adapters already; merge them first")
    targets = config.targets
    if targets is None and not config.parameters:
        targets = getattr(network, "adapter_targets", None)
    if targets is None and not config.parameters:
        raise AdapterError(
            f"targets is not given and {type(network).__name__} suggests none; give a "
            "list of regular expressions over module names"
        )
    train_fully = config.train_fully
    if train_fully is None:
        train_fully = getattr(network, "fully_trained", ())
    if not targets and not config.parameters and not train_fully:
        raise AdapterError(
            "targets, parameters and train_fully are all empty, so that nothing would "
            "be trained; name some layers"
        )

    modules = dict(network.named_modules())
    usable = [name for name in modules if name and not is_never_trained(network, name)]
    layers = [name for name in usable if type(modules[name]) in ADAPTED]
    bare = [
        name
        for name, _ in network.named_parameters()
        if name.rpartition(".")[0] not in layers and not is_never_trained(network, name)
    ]
    names = _matching(layers, targets or (), "targets")
    parameters = _matching(bare, config.parameters, "parameters")
    whole = _matching(usable, train_fully, "train_fully")
    _matching([*names, *parameters], config.patterns(), "rank_pattern or alpha_pattern")
    for name in names:
        inside = [outer for outer in whole if f"{name}.".startswith(f"{outer}.")]
        if inside:
            raise AdapterError(
                f"{name} is in targets and, with {inside[0]}, in train_fully; a layer "
                "is adapted or trained in full, not both"
            )
    for name in names:
        _refuse_bypass(name, modules)
    try:
        for name in names:
            attach(name, modules[name], config)
        for name in parameters:
            attach_parameter(name, modules[name.rpartition(".")[0]], config)
    except AdapterError:
        remove(network)
        raise

    network.requires_grad_(False)
    for _, adapter in adapters(network):
        adapter.requires_grad_(True)
    for name in whole:
        modules[name].requires_grad_(True)
    for name, parameter in network.named_parameters():
        if is_never_trained(network, name):
            parameter.requires_grad_(False)
    return (*names, *parameters)


def is_never_trained(network: nn.Module, name: str) -> bool:
    """Whether a network says that its `forward` does not read this module or tensor."""
    patterns: Sequence[str] = getattr(network, "never_trained", ())
    return any(re.search(pattern, name) for pattern in patterns)


@dataclass(frozen=True)
class Merged:
    """What merging replaced, to take it back; drop it to free the memory."""

    bases: dict[str, tuple[nn.Parameter, Adapter, float]]
    """Layer name to its base weight, its adapter and its dropout."""
    rounding: float
    """Largest |stored - exact| / |dW| (Frobenius) that the weights' dtype cost."""


@torch.no_grad()
def merge(network: nn.Module) -> Merged:
    """Fold every adapter into its weight, in place; plain layers remain.

    The sum is formed in float32, or in the weight's own dtype if that is wider, and
    rounded to it once. In bfloat16 an increment of 1e-3 of the weight's size is lost
    by 80 %: `rounding` says by how much here.

    Returns:
        The pristine base weights and the adapters, for `unmerge`.
    """
    bases: dict[str, tuple[nn.Parameter, Adapter, float]] = {}
    rounding = 0.0
    for name, layer in list(adapted_layers(network)):
        base, adapter = layer.get_parameter("weight"), layer.adapter
        exact = adapter.weight(base)
        stored = exact.to(base.dtype)
        change = (exact - base).norm()
        if change > 0:
            lost = (stored.to(exact.dtype) - exact).norm() / change
            rounding = max(rounding, lost.item())
        bases[name] = (base, adapter, layer.dropout_p)
        detach(layer)
        layer.weight = nn.Parameter(stored, requires_grad=base.requires_grad)
    _free_parameters(network, merged=True)
    return Merged(bases, rounding)


def unmerge(network: nn.Module, merged: Merged) -> None:
    """Undo `merge`: the very base weights and adapters are put back, bit by bit.

    Bare parameters stay merged.
    """
    for name, (base, adapter, dropout_p) in merged.bases.items():
        layer = network.get_submodule(name)
        layer.weight = base
        put(layer, adapter, dropout_p)


def remove(network: nn.Module) -> None:
    """Take every adapter off without merging it, in place."""
    for _, layer in list(adapted_layers(network)):
        detach(layer)
    _free_parameters(network, merged=False)


@contextmanager
def disabled(network: nn.Module) -> Iterator[None]:
    """Within the block the network computes as its base."""
    before = [(adapter, adapter.enabled) for _, adapter in adapters(network)]
    try:
        for adapter, _ in before:
            adapter.enabled = False
        yield
    finally:
        for adapter, enabled in before:
            adapter.enabled = enabled


def adapted_layers(network: nn.Module) -> Iterator[tuple[str, AdaptedLayer]]:
    """Names and layers that carry an adapter."""
    for name, module in network.named_modules():
        if isinstance(module, AdaptedLayer):
            yield name, module


def adapters(network: nn.Module) -> Iterator[tuple[str, Adapter]]:
    """Names and adapters, those of bare parameters included."""
    for name, module in network.named_modules():
        if isinstance(module, Adapter):
            yield name, module


def _refuse_bypass(name: str, modules: dict[str, nn.Module]) -> None:
    """Refuse a layer whose owner reads its weight in place of calling it."""
    owner = modules[name.rpartition(".")[0]]
    if isinstance(owner, nn.MultiheadAttention | nn.TransformerEncoderLayer):
        raise AdapterError(
            f"{name} belongs to a {type(owner).__name__}, whose fused kernels read its "
            "weight without calling it, so an adapter on it would be ignored; adapt "
            "the weight itself with parameters"
        )


def _free_parameters(network: nn.Module, *, merged: bool) -> None:
    """Take the adapters off bare parameters, leaving W + dW if `merged`, else W."""
    for module in list(network.modules()):
        for name in _parametrized(module):
            parametrize.remove_parametrizations(module, name, leave_parametrized=merged)


def _parametrized(module: nn.Module) -> list[str]:
    """Names of a module's parameters that have an adapter."""
    if not parametrize.is_parametrized(module):
        return []
    lists = module.parametrizations
    assert isinstance(lists, nn.ModuleDict)
    return [
        name
        for name, steps in lists.items()
        if any(isinstance(step, AdaptedParameter) for step in steps.children())
    ]


def _matching(names: list[str], patterns: Sequence[str], option: str) -> list[str]:
    """Those of the names that a pattern matches, in the network's own order."""
    for pattern in patterns:
        if not any(re.search(pattern, name) for name in names):
            examples = ", ".join(names[:3])
            raise AdapterError(
                f"{option}: {pattern!r} matches none of the {len(names)} layers that "
                f"it could; their names are like {examples}"
            )
    return [name for name in names if any(re.search(p, name) for p in patterns)]
