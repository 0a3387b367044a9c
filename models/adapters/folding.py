"""Fold adapters into their weights, take that back, or take the adapters off."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from models.adapters.adapted import AdaptedLayer
from models.adapters.attach import AdaptedParameter
from models.adapters.base import Adapter, AdapterError
from models.adapters.layers import PLAIN, detach, put
from models.adapters.reach import unwatch, watch
from models.adapters.routed import rosters
from models.adapters.trained import forget, put_back


@dataclass(frozen=True)
class Folded:
    """One layer's part of `Merged`."""

    base: nn.Parameter
    merged: nn.Parameter
    """What stands in the layer instead of the base."""
    version: int
    """How often `merged` had been written into."""
    adapter: Adapter
    dropout_p: float
    plain: type[nn.Module]

    def why_not(self, layer: nn.Module | None) -> str | None:
        """Why the layer is no longer as merging left it, as the end of "NAME ..."."""
        if layer is None:
            return "is gone"
        if type(layer) is not self.plain:
            return f"is a {type(layer).__name__}, not a merged {self.plain.__name__}"
        now = layer._parameters.get("weight")
        if now is not self.merged or now._version != self.version:
            return "has other weights than merging gave it"
        if (now.dtype, now.device) != (self.base.dtype, self.base.device):
            return f"was moved to {now.dtype} on {now.device}"
        return None


@dataclass(frozen=True)
class Merged:
    """What merging replaced, to take it back; drop it to free the memory."""

    bases: dict[str, Folded]
    """Layer name to its base weight and its adapter."""
    rounding: float
    """Largest |stored - exact| / |dW| (Frobenius) that the weights' dtype cost."""
    before: dict[nn.Module, dict[str, Tensor]]
    """Base values of the layers trained in full."""
    watched: bool
    """Whether the first training forward was still to come."""


@torch.no_grad()
def merge(network: nn.Module) -> Merged:
    """Fold every adapter into its weight, in place; plain layers remain.

    The sum is formed in float32, or in the weight's own dtype if that is wider, and
    rounded to it once. In bfloat16 an increment of 1e-3 of the weight's size is lost
    by 80 %: `rounding` says by how much here. Tied layers stay tied.

    Returns:
        The pristine base weights and the adapters, for `unmerge`.

    Raises:
        AdapterError: If a layer was parametrized or sharded since, or the network has a
            bank of several adapters. Nothing is changed then.
    """
    for roster in rosters(network):
        names = list(roster.members)
        if len(names) > 1:
            some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            raise AdapterError(
                f"the network has a bank of {len(names)} adapters ({some}), and a "
                "weight can take in one; close the bank with that one's name first"
            )
        assert roster.close is not None
        roster.close(*names)
    carriers = _carriers(network)
    bases: dict[str, Folded] = {}
    stored: dict[Adapter, nn.Parameter] = {}
    called: dict[Adapter, list[str]] = {}
    rounding = 0.0
    for name, layer in carriers.items():
        base, adapter = layer.base_weight, layer.adapter
        called.setdefault(adapter, []).append(f"{name}.weight")
        if adapter not in stored:
            exact = adapter.weight(base)
            rounded = exact.to(base.dtype)
            change = (exact - base).norm()
            if change > 0:
                lost = (rounded.to(exact.dtype) - exact).norm() / change
                rounding = max(rounding, lost.item())
            stored[adapter] = nn.Parameter(rounded, requires_grad=base.requires_grad)
        new = stored[adapter]
        bases[name] = Folded(
            base, new, new._version, adapter, layer.dropout_p, PLAIN[type(layer)]
        )
    for tied in called.values():
        if len(tied) > 1:
            warnings.warn(
                f"{' and '.join(tied)} are tied: the adapter was merged into all of "
                "them, and they stay tied",
                stacklevel=2,
            )
    for name, layer in carriers.items():
        detach(layer)
        layer._parameters["weight"] = bases[name].merged
    _free_parameters(network, merged=True)
    watched = unwatch(network)
    return Merged(bases, rounding, forget(network), watched)


def unmerge(network: nn.Module, merged: Merged) -> None:
    """Undo `merge`: the very base weights and adapters are put back, bit by bit.

    Bare parameters stay merged.

    Raises:
        AdapterError: If the network is not as `merge` left it: unmerged or adapted
            already, moved, trained or replaced. Nothing is changed then.
    """
    modules = dict(network.named_modules())
    for name, folded in merged.bases.items():
        if reason := folded.why_not(modules.get(name)):
            raise AdapterError(
                f"the network is not as merging left it: {name} {reason}; unmerge "
                "undoes a merge once, on the same network"
            )
    for name, folded in merged.bases.items():
        modules[name]._parameters["weight"] = folded.base
        put(name, modules[name], folded.adapter, folded.dropout_p)
    put_back(merged.before)
    if merged.watched:
        watch(network)


def remove(network: nn.Module) -> None:
    """Take every adapter off without merging it, in place."""
    for layer in _carriers(network).values():
        detach(layer)
    _free_parameters(network, merged=False)
    unwatch(network)
    forget(network)


def _carriers(network: nn.Module) -> dict[str, AdaptedLayer]:
    """All layers with an adapter, tied ones too.

    Raises:
        AdapterError: If one has become another class since.
    """
    found = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, AdaptedLayer)
    }
    for name, layer in found.items():
        if type(layer) not in PLAIN:
            raise AdapterError(
                f"{name} has become a {type(layer).__name__} since it was adapted, by "
                "a parametrization or fully_shard; take that back before its adapter "
                "is merged or removed"
            )
    return found


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
