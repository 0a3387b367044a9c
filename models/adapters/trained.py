"""What training changes in a network: adapters, layers trained in full, statistics.

`remember` keeps the values that layers trained in full have before that, so that the
base can be shown again (`disabled`).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from models.adapters.attach import tensors_of
from models.adapters.base import Adapter, AdapterError
from models.adapters.routed import unroute
from models.adapters.selection import Member

BEFORE = "values_before_training"
"""Attribute of a module trained in full: its own tensors' names and base values."""


def remember(module: nn.Module) -> None:
    """Mark a module as trained in full, all below it too, and keep its values."""
    for part in module.modules():
        own = {name: value.detach().clone() for name, value in tensors_of(part)}
        if own:
            setattr(part, BEFORE, own)


def settle(network: nn.Module, member: Member | None) -> None:
    """Leave a network under a bank as `adapt` would with one of its adapters, in place.

    Args:
        network: Its modules become plain or adapted ones again.
        member: Whose adapters and tensors it has then; None for the base.
    """
    for module, own in unroute(network, member):
        assert member is not None
        base = {n: t.detach() for n, t in tensors_of(module) if n in own}
        setattr(module, BEFORE, base)
        for attribute, name in own.items():
            tensor = member.tensor(name)
            if isinstance(tensor, nn.Parameter):
                tensor.requires_grad_(name in member.trained)
                module._parameters[attribute] = tensor
            else:
                module._buffers[attribute] = tensor
    for adapter in () if member is None else member.children():
        adapter.requires_grad_(True)


def forget(network: nn.Module) -> dict[nn.Module, dict[str, Tensor]]:
    """Undo `remember` everywhere; what it kept, for `put_back`."""
    kept = {
        module: vars(module)[BEFORE]
        for module in network.modules()
        if BEFORE in vars(module)
    }
    for module in kept:
        delattr(module, BEFORE)
    return kept


def put_back(kept: dict[nn.Module, dict[str, Tensor]]) -> None:
    """The inverse of `forget`."""
    for module, values in kept.items():
        setattr(module, BEFORE, values)


@contextmanager
def as_before(network: nn.Module) -> Iterator[None]:
    """Within the block the layers trained in full have the values of their base.

    The tensors change places with copies and are not written into, so that a graph
    from before the block can still go backward.

    Raises:
        AdapterError: If such a layer is sharded; nothing is changed then.
    """
    swapped: list[tuple[dict[str, Tensor | None], str, Tensor]] = []
    for name, module in network.named_modules():
        for attribute, value in vars(module).get(BEFORE, {}).items():
            is_parameter = attribute in module._parameters
            held = module._parameters if is_parameter else module._buffers
            now = held.get(attribute)
            if now is None or isinstance(now, DTensor):
                raise AdapterError(
                    f"{name}.{attribute} was replaced or sharded since `adapt`; its "
                    "base value cannot be put in its place"
                )
            swapped.append((held, attribute, _like(value, now)))
    trained = [held[attribute] for held, attribute, _ in swapped]
    try:
        for held, attribute, value in swapped:
            held[attribute] = value
        yield
    finally:
        for (held, attribute, _), now in zip(swapped, trained, strict=True):
            held[attribute] = now


def _like(value: Tensor, now: Tensor) -> Tensor:
    """A copy of a base value where the trained one is now, in its dtype."""
    copy = value.to(now.device, now.dtype, copy=True)
    if isinstance(now, nn.Parameter):
        return nn.Parameter(copy, requires_grad=False)
    return copy


def trained_tensors(network: nn.Module) -> dict[str, Tensor]:
    """State-dict names and tensors of all that training changes, each tensor once.

    Those are the adapters' tensors; parameters that want a gradient; buffers of modules
    that are trained in full; and running statistics, which follow the data in training
    whether a layer is frozen or not.
    """
    adapters = adapters_own(network)
    moving = {
        id(buffer)
        for module in network.modules()
        if _moves(module)
        for buffer in module._buffers.values()
    }
    found: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor):  # a module's extra state
            continue
        changes = tensor.requires_grad or id(tensor) in adapters | moving
        if changes and id(tensor) not in found:
            found[id(tensor)] = (name, tensor)
    return dict(found.values())


def adapters_own(network: nn.Module) -> set[int]:
    """`id` of every tensor that belongs to an adapter."""
    return {
        id(tensor)
        for module in network.modules()
        if isinstance(module, Adapter)
        for tensor in (*module.parameters(), *module.buffers())
    }


def _moves(module: nn.Module) -> bool:
    """Whether a module's buffers change in training."""
    if BEFORE in vars(module) or getattr(module, "track_running_stats", False):
        return True
    own = (p for p in module._parameters.values() if p is not None)
    return not isinstance(module, Adapter) and any(p.requires_grad for p in own)
