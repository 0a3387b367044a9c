"""Put adapters into a network, find them there, switch them off."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from torch import nn

from models.adapters.adapted import AdaptedLayer
from models.adapters.attach import (
    Owners,
    attach_parameter,
    plan,
    plan_parameter,
    resembles_layer,
)
from models.adapters.base import Adapter, AdapterConfig, AdapterError
from models.adapters.folding import remove
from models.adapters.layers import adapted_class
from models.adapters.reach import watch
from models.adapters.routed import Routed, rosters
from models.adapters.selection import narrowed
from models.adapters.trained import as_before, remember


def adapt(network: nn.Module, config: AdapterConfig) -> tuple[str, ...]:
    """Freeze a network and give its target layers adapters, in place.

    A network may suggest what to adapt by three attributes, each a sequence of
    regular expressions: `adapter_targets`, `fully_trained`, and `never_trained` for
    parameters that its `forward` does not read. Layers with one weight, tied or the
    same layer under two names, get one adapter, called by the first name; a pattern may
    match any. After the first training forward a warning names the adapters that it did
    not come by.

    Args:
        network: Any module; `layers.ADAPTED` lists the layers that can be targets.
        config: The method and its options.

    Returns:
        The names of the adapted layers and parameters.

    Raises:
        AdapterError: If the network has adapters already, a pattern matches nothing,
            the options do not fit a layer, or a layer cannot be adapted. The network is
            unchanged then, as after every other exception.
    """
    if any(True for _ in adapters(network)) or rosters(network):
        raise AdapterError(
            "the network has adapters already; merge them, or close its bank, first"
        )
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

    found = _find(network, config, targets or (), train_fully)
    owners = Owners(network)
    plans = [
        plan(name, found.modules[name], config.for_layer(by), owners)
        for name, by in found.layers.items()
    ]
    steps = {
        name: plan_parameter(name, owner, config.for_layer(name), owners)
        for name, owner in found.parameters.items()
    }
    try:
        for each in plans:
            each.carry_out()
        for name, step in steps.items():
            attach_parameter(found.parameters[name], name.rpartition(".")[2], step)
    except BaseException:
        remove(network)
        raise

    network.requires_grad_(False)
    for _, adapter in adapters(network):
        adapter.requires_grad_(True)
    for name in found.whole:
        remember(found.modules[name])
        found.modules[name].requires_grad_(True)
    for name, parameter in network.named_parameters():
        if is_never_trained(network, name):
            parameter.requires_grad_(False)
    if plans or steps:
        watch(network)
    return (*found.layers, *steps)


class Found(NamedTuple):
    """What the patterns of a configuration match in a network."""

    modules: dict[str, nn.Module]
    """All modules by all their names."""
    layers: dict[str, str]
    """First name of each layer to adapt, to the name that it was asked for by."""
    parameters: dict[str, nn.Module]
    """Name of each bare parameter to adapt, to the module that holds it."""
    whole: list[str]
    """Modules to train in full."""


def _find(
    network: nn.Module,
    config: AdapterConfig,
    targets: Sequence[str],
    train_fully: Sequence[str],
) -> Found:
    """Match the patterns, and refuse what contradicts itself or cannot be a target."""
    modules = dict(network.named_modules(remove_duplicate=False))
    usable = [name for name in modules if name and not is_never_trained(network, name)]
    layers = [n for n in usable if adapted_class(type(modules[n])) is not None]
    bare = [
        name
        for name, _ in network.named_parameters()
        if name.rpartition(".")[0] not in layers and not is_never_trained(network, name)
    ]
    strange = [n for n in usable if resembles_layer(modules[n]) and n not in layers]
    names = _matching([*layers, *strange], targets, "targets")
    for name in names:
        if name in strange:
            raise AdapterError(
                f"{name} is a {type(modules[name]).__name__}, a quantised layer or "
                "another kind that cannot be adapted; leave it out of targets"
            )
    parameters = _matching(bare, config.parameters, "parameters")
    whole = _matching(usable, train_fully, "train_fully")
    _matching([*names, *parameters], config.patterns(), "rank_pattern or alpha_pattern")

    trained = {
        id(parameter): name
        for name in whole
        for parameter in modules[name].parameters()
    }
    for name in names:
        weight = modules[name]._parameters.get("weight")
        if id(weight) in trained or any(
            f"{name}.".startswith(f"{outer}.") for outer in whole
        ):
            raise AdapterError(
                f"{name} is in targets and, with {trained.get(id(weight), name)}, in "
                "train_fully; a layer is adapted or trained in full, not both"
            )
    owners = {name: modules[name.rpartition(".")[0]] for name in parameters}
    return Found(
        modules, _by_first_name(network, modules, names, config), owners, whole
    )


def _by_first_name(
    network: nn.Module,
    modules: dict[str, nn.Module],
    names: list[str],
    config: AdapterConfig,
) -> dict[str, str]:
    """One name for each weight, its first in the network, to the name asked for."""
    owners = Owners(network)
    chosen: dict[str, str] = {}
    for name in names:
        layers = (
            module
            for module, _ in owners.sharing(modules[name], "weight")
            if adapted_class(type(module)) is not None
        )
        layer = next(layers, modules[name])
        first = owners.names[layer][0]
        own = any(re.search(pattern, name) for pattern in config.patterns())
        if first not in chosen or own:
            chosen[first] = name
    return chosen


def is_never_trained(network: nn.Module, name: str) -> bool:
    """Whether a network says that this module or tensor is not to be trained."""
    patterns: Sequence[str] = getattr(network, "never_trained", ())
    return any(re.search(pattern, name) for pattern in patterns)


@contextmanager
def disabled(network: nn.Module) -> Iterator[None]:
    """Within the block the network computes as its base.

    Adapters are switched off, and layers trained in full have the values from before.

    Raises:
        AdapterError: If a layer trained in full was sharded or replaced since.
    """
    before = [(adapter, adapter.enabled) for _, adapter in adapters(network)]
    try:
        for adapter, _ in before:
            adapter.enabled = False
        with ExitStack() as stack:
            stack.enter_context(as_before(network))
            for roster in rosters(network):
                stack.enter_context(narrowed(roster, None))
            yield
    finally:
        for adapter, enabled in before:
            adapter.enabled = enabled


def adapted_layers(network: nn.Module) -> Iterator[tuple[str, AdaptedLayer]]:
    """Names and layers that carry an adapter; of tied layers the first."""
    seen: set[Adapter] = set()
    for name, module in network.named_modules():
        if not isinstance(module, AdaptedLayer) or isinstance(module, Routed):
            continue
        if module.adapter not in seen:
            seen.add(module.adapter)
            yield name, module


def adapters(network: nn.Module) -> Iterator[tuple[str, Adapter]]:
    """Names and adapters, those of bare parameters included."""
    for name, module in network.named_modules():
        if isinstance(module, Adapter):
            yield name, module


def _matching(names: list[str], patterns: Sequence[str], option: str) -> list[str]:
    """Those of the names that a pattern matches, in the network's own order."""
    for pattern in patterns:
        if not any(re.search(pattern, name) for name in names):
            examples = ", ".join(names[:3])
            raise AdapterError(
                f"{option}: {pattern!r} matches none of the {len(names)} layers that "
                f"it could; their names are like {examples}"
                if names
                else f"{option}: {pattern!r} has nothing to match; the network has no "
                "such layer below itself (linear, convolution and embedding layers can "
                "be adapted; one that is the whole network goes into nn.Sequential)"
            )
    return [name for name in names if any(re.search(p, name) for p in patterns)]
