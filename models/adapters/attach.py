"""Make adapters for layers and bare parameters, or say by name why that cannot be.

Everything is looked at and built before anything is changed.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from models.adapters.base import Adapter, AdapterConfig, AdapterError, WeightShape
from models.adapters.layers import adapted_class, put, shape_of


@dataclass(frozen=True)
class Plan:
    """An adapter and the layers that will carry it: several where they are tied."""

    layers: dict[str, nn.Module]
    adapter: Adapter
    dropout_p: float

    def carry_out(self) -> None:
        """Give the layers their adapter, in place."""
        for name, layer in self.layers.items():
            put(name, layer, self.adapter, self.dropout_p)


class Owners:
    """Which modules hold which tensor, under all names that a network has for them."""

    def __init__(self, network: nn.Module) -> None:
        self.names: dict[nn.Module, list[str]] = {}
        self.of: dict[int, list[tuple[nn.Module, str]]] = {}
        for name, module in network.named_modules(remove_duplicate=False):
            self.names.setdefault(module, []).append(name)
        for module in self.names:
            for attribute, parameter in module._parameters.items():
                if parameter is not None:
                    held = self.of.setdefault(id(parameter), [])
                    held.append((module, attribute))

    def sharing(self, module: nn.Module, attribute: str) -> list[tuple[nn.Module, str]]:
        """All that hold the tensor of this attribute, in the network's order."""
        return self.of.get(id(module._parameters.get(attribute)), [])

    def called(self, module: nn.Module, attribute: str) -> str:
        """The first dotted name of an attribute."""
        return ".".join(filter(None, (self.names[module][0], attribute)))


def plan(name: str, layer: nn.Module, config: AdapterConfig, owners: Owners) -> Plan:
    """Make the adapter of a layer without giving it to the layer yet.

    Tied layers have one weight, so one adapter, made for the first of them.

    Args:
        name: The layer's dotted name, for messages and per-layer options.
        layer: The first in the network that holds the weight.
        config: What kind of adapter.
        owners: Of the whole network.

    Raises:
        AdapterError: If the layer, or one that it is tied with, cannot have one.
    """
    if reason := why_not(layer):
        raise AdapterError(f"{name} {reason}")
    shape = shape_of(layer, config.chunks_of(name))
    sharing = owners.sharing(layer, "weight")
    for other, attribute in sharing:
        called = owners.called(other, attribute)
        if attribute != "weight" or adapted_class(type(other)) is None:
            raise AdapterError(
                f"{name} shares its weight with {called}, which is read in ways that "
                "an adapter cannot follow; leave it out of targets"
            )
        if reason := why_not(other):
            raise AdapterError(
                f"{name} shares its weight with {called}, and that layer {reason}"
            )
        if isinstance(other, nn.Embedding) and other.padding_idx is not None:
            shape = replace(shape, kept_row=other.padding_idx)
    if len(sharing) > 1:
        warnings.warn(
            f"{tied(owners, sharing)} are tied, one tensor: its adapter acts in all of "
            "them, and merging keeps the tie",
            stacklevel=3,
        )
    weight = layer._parameters["weight"]
    assert weight is not None
    adapter = _build(name, config, shape, weight)
    layers = {owners.names[other][0]: other for other, _ in sharing}
    return Plan(layers, adapter, config.dropout_p)


def tied(owners: Owners, sharing: list[tuple[nn.Module, str]]) -> str:
    """The names of tied tensors, for a message."""
    return " and ".join(owners.called(*pair) for pair in sharing)


class AdaptedParameter(nn.Module):
    """The parametrization of a bare parameter: W + dW wherever it is read."""

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()
        self.adapter = adapter

    def forward(self, weight: Tensor) -> Tensor:
        if not self.adapter.acts():
            return weight
        return self.adapter.weight(weight).to(weight.dtype)


def plan_parameter(
    name: str, owner: nn.Module, config: AdapterConfig, owners: Owners
) -> AdaptedParameter:
    """Make the adapter of the bare parameter `name` of the module `owner`."""
    attribute = name.rsplit(".", 1)[-1]
    weight = owner._parameters[attribute]
    assert weight is not None
    if isinstance(owner, parametrize.ParametrizationList):
        raise AdapterError(f"{name} is parametrized already; remove that first")
    if reason := _why_not_tensor(weight):
        raise AdapterError(f"{name} {reason}")
    if weight.ndim < 2:
        raise AdapterError(f"{name} has {weight.ndim} axes; an increment needs two")
    if weight.ndim > 2 and weight.shape[0] in _experts(owner):
        raise AdapterError(
            f"{name} stacks the weights of {weight.shape[0]} experts in one tensor "
            f"{tuple(weight.shape)}, which one increment would mix; adapt the layers "
            "beside them, such as attention"
        )
    sharing = owners.sharing(owner, attribute)
    if len(sharing) > 1:
        raise AdapterError(
            f"{tied(owners, sharing)} are tied; an adapter on one would untie them"
        )
    return AdaptedParameter(
        _build(name, config, WeightShape(tuple(weight.shape)), weight)
    )


def _experts(owner: nn.Module) -> set[object]:
    """How many experts a module says that it has, under whatever name."""
    return {
        value for name, value in vars(owner).items() if name.endswith("num_experts")
    }


def attach_parameter(owner: nn.Module, attribute: str, step: AdaptedParameter) -> None:
    """Give a bare parameter its adapter, in place."""
    parametrize.register_parametrization(owner, attribute, step)
    step.adapter.reached = False  # torch tries a parametrization when it registers it


def why_not(layer: nn.Module) -> str | None:
    """Why a layer of a known kind cannot be adapted, as the end of "NAME ..."; or None.

    Each of these computes its weight, or its output, somewhere that an adapter does
    not see.
    """
    if parametrize.is_parametrized(layer):
        return "is parametrized (weight_norm, spectral_norm and the like); remove that"
    if isinstance(layer, FSDPModule):
        return "is sharded by fully_shard; adapt first, shard then"
    if isinstance(layer, LazyModuleMixin):
        return "is lazy and has no weight until its first input; run the network once"
    if "forward" in vars(layer):
        return (
            "has a forward of its own put on the instance, as accelerate's hooks do; "
            "adapt first, or remove the hook"
        )
    if hasattr(layer, "adapter"):
        return "has an attribute `adapter` already; leave it out of targets"
    weight = layer._parameters.get("weight")
    if weight is None:
        hooks = {type(hook).__name__ for hook in layer._forward_pre_hooks.values()}
        return (
            f"has no weight of its own: a hook ({', '.join(sorted(hooks)) or 'none'}) "
            "computes it, as weight_norm, spectral_norm and pruning do, or it is "
            "quantised; make it plain first, or leave it out of targets"
        )
    if isinstance(layer, nn.Embedding) and layer.max_norm is not None:
        return (
            "renormalises its frozen table as it is read (max_norm); leave it out of "
            "targets"
        )
    return _why_not_tensor(weight)


def _why_not_tensor(weight: Tensor) -> str | None:
    if isinstance(weight, DTensor):
        return "is sharded; adapt first, shard then"
    if weight.is_meta:
        return "has no values yet (device meta); load the base's weights, then adapt"
    if not weight.is_floating_point() or weight.element_size() < 2:
        return (
            f"is quantised ({weight.dtype}); adapt the weights in floating point, or "
            "leave it out of targets"
        )
    if type(weight) is not nn.Parameter:
        return f"has a weight of type {type(weight).__name__}; leave it out of targets"
    return None


def resembles_layer(module: nn.Module) -> bool:
    """Whether a module has the sizes of a linear or convolution, but is none we know.

    So are the quantised layers of torch and others, which are no `nn.Linear`.
    """
    pairs = (("in_features", "out_features"), ("in_channels", "out_channels"))
    sized = any(all(hasattr(module, size) for size in pair) for pair in pairs)
    below = (type(child) for child in module.modules())
    return sized and all(adapted_class(kind) is None for kind in below)


def tensors_of(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """A module's own parameters and saved buffers."""
    for name, parameter in module._parameters.items():
        if parameter is not None:
            yield name, parameter
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._non_persistent_buffers_set:
            yield name, buffer


def _build(
    name: str, config: AdapterConfig, shape: WeightShape, weight: Tensor
) -> Adapter:
    if config.starts_from_weight and not weight.any():
        warnings.warn(
            f"{name} is zero, so {type(config).__name__} gives it no gradient and it "
            "will never be trained; use another method, or train it fully",
            stacklevel=4,
        )
    try:
        adapter = config.build(shape, weight)
    except AdapterError as error:
        raise AdapterError(f"{name}: {error}") from None
    # float32 at least: a bfloat16 factor would lose most of each small step.
    wide = torch.promote_types(weight.dtype, torch.float32)
    return adapter.to(weight.device, wide)
