"""Adapters of one configuration for one network, made once and copied for each file."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, TypeVar

from torch import Tensor, nn

from models.adapters.adapted import AdaptedLayer
from models.adapters.attach import AdaptedParameter, Owners
from models.adapters.base import Adapter, AdapterConfig, AdapterError
from models.adapters.inject import adapt, adapters
from models.adapters.selection import Member, Place
from models.adapters.trained import trained_tensors

M = TypeVar("M", bound=nn.Module)
Homes = Mapping[str, tuple[tuple[str, str], ...]]
"""State-dict name to the modules and attributes that have the tensor."""


def twin(network: nn.Module) -> nn.Module:
    """The same modules over tensors that lie in the same memory, all frozen."""
    memo: dict[int, object] = {}
    for parameter in network.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    for buffer in network.buffers():
        memo[id(buffer)] = buffer.detach()
    return copy.deepcopy(network, memo)


def move(plain: nn.Module, network: nn.Module) -> bool:
    """Let a twin follow its network to where that was moved; whether it had to."""
    pairs = [
        (one, two)
        for mine, other in (
            (plain.parameters(), network.parameters()),
            (plain.buffers(), network.buffers()),
        )
        for one, two in zip(mine, other, strict=True)
        if one.data_ptr() != two.data_ptr() or one.dtype != two.dtype
    ]
    for one, two in pairs:
        one.data = two.detach()
    return bool(pairs)


def homes(network: nn.Module) -> Homes:
    """Where each tensor of a plain network is at home; tied ones have several homes."""
    owners = Owners(network)
    modules = dict(network.named_modules())
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    for name in network.state_dict():
        path, _, attribute = name.rpartition(".")
        module = modules.get(path)
        if module is None or not hasattr(module, attribute):
            continue
        sharing = owners.sharing(module, attribute) or [(module, attribute)]
        found[name] = tuple((owners.names[m][0], a) for m, a in sharing)
    return found


@dataclass(frozen=True)
class Prototype:
    """What `adapt` makes of a network under a configuration, taken apart again."""

    adapters: Mapping[str, Adapter]
    """Layer name to adapter, as it starts."""
    carriers: Mapping[str, tuple[str, float]]
    """Name of each layer that carries one, tied ones too, to the adapter's name and the
    probability of dropout."""
    whole: Mapping[str, Tensor]
    """State-dict name to the base's value of what is trained in full, and of running
    statistics; parameters are `nn.Parameter`s that want a gradient."""

    @classmethod
    def of(cls, network: nn.Module, config: AdapterConfig) -> Self:
        """Try a configuration on a twin of a network, which is changed by it.

        Raises:
            AdapterError: If it does not fit, or adapts bare parameters.
        """
        adapt(network, config)
        if any(isinstance(module, AdaptedParameter) for module in network.modules()):
            raise AdapterError(
                f"parameters {list(config.parameters)} belong to no layer that could "
                "choose by example; give such an adapter a network of its own"
            )
        found = {name.removesuffix(".adapter"): a for name, a in adapters(network)}
        names = {adapter: name for name, adapter in found.items()}
        carriers = {
            name: (names[module.adapter], module.dropout_p)
            for name, module in network.named_modules()
            if isinstance(module, AdaptedLayer)
        }
        whole = {
            name: tensor
            for name, tensor in trained_tensors(network).items()
            if ".adapter." not in name
        }
        return cls(found, carriers, whole)

    @property
    def trained(self) -> frozenset[str]:
        """Names of the parameters of layers trained in full."""
        return frozenset(n for n, tensor in self.whole.items() if tensor.requires_grad)

    def begin(self, generation: int, homes: Homes) -> Member:
        """A member that is to be trained, with these very adapters."""
        own = {name: _copied(tensor) for name, tensor in self.whole.items()}
        places = self._places(own, homes)
        return Member(generation, self.adapters, own, places, self.trained)

    def fill(
        self,
        generation: int,
        homes: Homes,
        base: Mapping[str, Tensor],
        tensors: Mapping[str, Tensor],
    ) -> Member:
        """A member that is not trained, with the tensors of a file, not copied.

        Args:
            generation: Of the member.
            homes: Of the network.
            base: Its tensors by state-dict names.
            tensors: What an adapter of this configuration consists of, and whatever
                else was new beside its base.

        Raises:
            AdapterError: Naming what is missing, unexpected, misshapen or not finite.
        """
        filled, used = {}, set(self.whole)
        for layer, adapter in self.adapters.items():
            copied = _replica(adapter)
            prefix = f"{layer}.adapter."
            state = copied.state_dict(keep_vars=True)
            used.update(prefix + name for name in state)
            _check(prefix, state, tensors)
            given = {n: _like(tensors[prefix + n], now) for n, now in state.items()}
            copied.load_state_dict(given, assign=True)
            filled[layer] = copied.requires_grad_(False)
        strange = sorted(n for n in tensors.keys() - used if n not in homes)
        if strange:
            raise AdapterError(f"tensors are unexpected: {', '.join(strange[:3])}")
        own_names = [n for n in tensors if ".adapter." not in n]
        _check("", {n: base[n] for n in {*self.whole, *own_names}}, tensors)
        own: dict[str, Tensor] = {}
        for name in own_names:
            value = _like(tensors[name], base[name])
            is_parameter = isinstance(base[name], nn.Parameter)
            own[name] = nn.Parameter(value, False) if is_parameter else value
        places = self._places(own, homes)
        return Member(generation, filled, own, places, self.trained)

    def _places(self, own: Mapping[str, Tensor], homes: Homes) -> dict[str, Place]:
        held: dict[str, dict[str, str]] = {}
        for name in own:
            for key, attribute in homes[name]:
                held.setdefault(key, {})[attribute] = name
        places = {}
        for key in dict.fromkeys([*self.carriers, *held]):
            name, dropout_p = self.carriers.get(key, ("", 0.0))
            places[key] = Place(name or None, dropout_p, held.get(key, {}))
        return places


def _check(
    prefix: str, expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> None:
    for name, like in expected.items():
        found = tensors.get(prefix + name)
        if found is None or found.shape != like.shape:
            what = "missing" if found is None else f"{tuple(found.shape)}"
            raise AdapterError(
                f"its {prefix}{name} is {what}, where this network has "
                f"{tuple(like.shape)}; give the network that it was trained on"
            )
        if found.is_floating_point() and not bool(found.isfinite().all()):
            raise AdapterError(f"its {prefix}{name} holds NaN or infinite numbers")


def _like(value: Tensor, like: Tensor) -> Tensor:
    return value.detach().to(like.device, like.dtype)


def _copied(tensor: Tensor) -> Tensor:
    copied = tensor.detach().clone()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(copied, tensor.requires_grad)
    return copied


def _replica(module: M) -> M:
    """The same module with dictionaries of tensors of its own, sharing all else.

    `copy.deepcopy` would copy a dozen empty dictionaries of hooks a module, which for
    thousands of adapters take as much memory as their tensors.
    """
    replica: M = module.__new__(type(module))
    vars(replica).update(vars(module))
    vars(replica)["_parameters"] = dict(module._parameters)
    vars(replica)["_buffers"] = dict(module._buffers)
    present = ((name, m) for name, m in module._modules.items() if m is not None)
    children = {name: _replica(m) for name, m in present}
    vars(replica)["_modules"] = children
    return replica
