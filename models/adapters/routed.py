"""A module whose tensors, and whose adapter, are those of the example at hand.

`route` changes the class of a module of a network under a bank to a subclass of its
own. Where one adapter counts for the whole batch, the module is what `adapt` would have
made of it: `adapter`, `weight` and the tensors trained in full are properties that give
that adapter's. A mixed batch is computed in one product where the layer has one for it
(`batched`), and else segment by segment: the examples of each adapter together, by the
module's own forward.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from models.adapters.adapted import AdaptedLayer
from models.adapters.base import Adapter, AdapterError
from models.adapters.compute.batched import Route
from models.adapters.compute.linear import transformed
from models.adapters.layers import adapted_class, put, shape_of
from models.adapters.selection import (
    IDLE,
    Member,
    Partition,
    Place,
    Roster,
    Selection,
    cat,
    narrowed,
    selected,
)

NOWHERE = Place(None, 0.0, {})


class Routed(nn.Module):
    """A module of a network under a bank; stands in front of the module's own class."""

    roster: Roster
    key: str
    """Its first name in the network, under which members have their places."""

    @property
    def member(self) -> Member | None:
        """The one member that counts here.

        Raises:
            AdapterError: If several do, so that there is no one tensor to give.
        """
        selection = selected(self.roster)
        if selection is None:
            return None
        if selection.is_single:
            return selection.distinct[0]
        members = selection.partition(self.key).members
        if len(members) > 1:
            raise AdapterError(
                f"{self.key} has tensors of its own in {len(members)} of the selected "
                "adapters, and the network reads them without calling it, for all "
                "examples at once; select one adapter for the whole batch"
            )
        return members[0]

    @property
    def place(self) -> Place:
        """What that member does here."""
        member = self.member
        return NOWHERE if member is None else member.places.get(self.key, NOWHERE)

    def own(self, attribute: str) -> Tensor | None:
        """A tensor of the module: the member's, if it has its own, or the base's."""
        member, found = self.member, None
        if member is not None:
            name = member.places.get(self.key, NOWHERE).own.get(attribute)
            found = None if name is None else member.tensor(name)
        if found is None:
            found = self._parameters.get(attribute)
        return self._buffers.get(attribute) if found is None else found

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        selection = selected(self.roster)
        if selection is None or selection.is_single:
            return super().forward(*args, **kwargs)
        parts = selection.partition(self.key)
        if len(parts.members) == 1:
            with narrowed(self.roster, parts.members[0]):
                return super().forward(*args, **kwargs)
        return self.mixed(selection, parts, *args, **kwargs)

    def mixed(
        self, selection: Selection, parts: Partition, *args: Any, **kwargs: Any
    ) -> Any:
        """The output for examples that differ."""
        return self.by_segments(selection, parts, *args, **kwargs)

    def by_segments(
        self, selection: Selection, parts: Partition, *args: Any, **kwargs: Any
    ) -> Any:
        """The module's own forward for the examples of each member, put together.

        Tensors are taken apart along their first axis and split, not sliced: the
        gradient of a split is one tensor, that of a slice one for each.
        """
        leaves, tree = tree_flatten((args, kwargs))
        given: list[list[Any]] = [[] for _ in parts.members]
        for leaf in leaves:
            pieces = _taken_apart(leaf, selection, parts)
            for k, piece in enumerate(pieces):
                given[k].append(piece)
        outputs: list[Any] = []
        whole: Any = None
        for k, (member, own) in enumerate(zip(parts.members, given, strict=True)):
            own_args, own_kwargs = tree_unflatten(own, tree)
            with narrowed(self.roster, member):
                output = super().forward(*own_args, **own_kwargs)
            if torch.is_grad_enabled() or torch.compiler.is_compiling():
                outputs.append(output)
                continue
            # One after the other into its place: a segment is still in the cache, and
            # the next one takes its memory.
            if whole is None:
                whole = tree_map(lambda part: _room(part, k, parts), output)  # noqa: B023
            tree_map(lambda all_, part: _put(all_, part, k, parts), whole, output)  # noqa: B023
        if whole is not None:
            return whole
        return tree_map(lambda *found: _together(found, parts), *outputs)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        for name, now in {**self._parameters, **self._buffers}.items():
            new = state_dict.get(f"{prefix}{name}")
            if now is None or new is None or not self.roster.members:
                continue
            if new.shape == now.shape and not torch.equal(new.to(now), now):
                raise AdapterError(
                    f"{prefix}{name} would become another base under the "
                    f"{len(self.roster.members)} adapters of a bank; remove them first"
                )
        super()._load_from_state_dict(state_dict, prefix, *args)


class RoutedLayer(Routed, AdaptedLayer):
    """A layer of a kind that can be adapted."""

    @property
    def adapter(self) -> Adapter:  # type: ignore[override]
        member, place = self.member, self.place
        if member is None or place.adapter is None:
            return IDLE
        return member.adapter(place.adapter)

    @property
    def dropout_p(self) -> float:  # type: ignore[override]
        return self.place.dropout_p

    @property
    def dense(self) -> bool:  # type: ignore[override]
        shape = self.adapter.shape
        return self.adapter is not IDLE and shape != shape_of(self, shape.chunks)

    @property
    def base_weight(self) -> nn.Parameter:
        weight = self.own("weight")
        assert isinstance(weight, nn.Parameter)
        return weight

    def gain(self) -> Tensor | None:
        """DoRA's norms read the base: once for a member that is not trained."""
        member, base = self.member, self.base_weight
        read = (base, *self.adapter.parameters())
        if member is None or any(tensor.requires_grad for tensor in read):
            return super().gain()
        state = (base.device, base.dtype, *((id(t), t._version) for t in read))
        found = member.gains.get(self.key)
        if found is not None and found[0] == state:
            return found[1]
        # Kept for training beside it, too, which can save no tensor of inference mode.
        with torch.inference_mode(mode=False), torch.no_grad():
            gain = super().gain()
        if gain is not None and not torch.compiler.is_compiling():
            member.gains[self.key] = (state, gain)
        return gain

    def mixed(
        self, selection: Selection, parts: Partition, *args: Any, **kwargs: Any
    ) -> Any:
        if len(args) != 1 or kwargs or transformed() or torch.compiler.is_compiling():
            return self.by_segments(selection, parts, *args, **kwargs)
        routes: list[Route] = []
        for member in parts.members:
            with narrowed(self.roster, member):
                if self.training and self.dropout_p > 0:
                    break
                route = self.route()
            if route is None:
                break
            routes.append(route)
        if len(routes) < len(parts.members):
            return self.by_segments(selection, parts, *args)
        (x,) = args
        rows = selection.rows_each(len(x))
        return self.batched(x, rows, routes, parts)


_CLASSES: dict[type[nn.Module], type[Routed]] = {}
_PLAIN: dict[type[Routed], type[nn.Module]] = {}


def route(key: str, module: nn.Module, roster: Roster) -> None:
    """Make a plain module the routed one of its kind, in place, unless it is already.

    Batches that run meanwhile have no member with a place here, and go on as before.
    """
    if isinstance(module, Routed):
        return
    plain = type(module)
    names = frozenset((*module._parameters, *module._buffers))
    made = _CLASSES.get(plain)
    if made is None or not names <= set(vars(made)) | {"weight"}:
        adapted = adapted_class(plain)
        kinds = (Routed, plain) if adapted is None else (RoutedLayer, adapted)
        given = names if adapted is None else names - {"weight"}
        made = type(f"Routed{plain.__name__}", kinds, {n: _reader(n) for n in given})
        _CLASSES[plain], _PLAIN[made] = made, plain
    vars(module).update(key=key, roster=roster, called=key)
    module.__class__ = made


def unroute(
    network: nn.Module, member: Member | None
) -> list[tuple[nn.Module, Mapping[str, str]]]:
    """Restore the plain classes, in place, and leave one member's adapters.

    Returns:
        The modules of which that member has tensors of its own, and their `Place.own`.
    """
    changed: list[tuple[nn.Module, Mapping[str, str]]] = []
    for _, module in list(network.named_modules()):
        if not isinstance(module, Routed):
            continue
        key = module.key
        del module.key, module.roster, module.called
        module.__class__ = _PLAIN[type(module)]  # type: ignore[assignment]
        place = NOWHERE if member is None else member.places.get(key, NOWHERE)
        if member is not None and place.adapter is not None:
            put(key, module, member.adapter(place.adapter), place.dropout_p)
        if place.own:
            changed.append((module, place.own))
    return changed


def rosters(network: nn.Module) -> list[Roster]:
    """The banks that a network is under: one, or none."""
    found = (m.roster for m in network.modules() if isinstance(m, Routed))
    return list(dict.fromkeys(found))


def _reader(attribute: str) -> property:
    """A property that gives a module's tensor as `Routed.own` does."""

    def read(module: Routed) -> Tensor | None:
        try:
            return module.own(attribute)
        except AttributeError as error:
            # It would send Python on to nn.Module.__getattr__, which has the base.
            raise RuntimeError(f"reading {attribute} failed: {error}") from error

    return property(read)


def _taken_apart(leaf: Any, selection: Selection, parts: Partition) -> Sequence[Any]:
    """A tensor's examples by member; whatever else there is goes to each member."""
    if not isinstance(leaf, Tensor) or leaf.ndim == 0:
        return [leaf] * len(parts.members)
    rows = selection.rows_each(len(leaf))
    sizes = [rows * (stop - start) for start, stop, _ in parts.runs]
    pieces = torch.split(leaf, sizes)
    found: list[list[Tensor]] = [[] for _ in parts.members]
    for (_, _, k), piece in zip(parts.runs, pieces, strict=True):
        found[k].append(piece)
    return [cat(own) for own in found]


def _room(part: Any, k: int, parts: Partition) -> Any:
    """An empty output for all examples, laid out as that of the k-th member's."""
    if not isinstance(part, Tensor):
        return part
    rows = len(part) // max(parts.count(k), 1)
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(part.ndim)
    return torch.empty(
        (rows * len(parts.which), *part.shape[1:]),
        dtype=part.dtype,
        device=part.device,
        memory_format=(
            torch.contiguous_format if last is None or part.is_contiguous() else last
        ),
    )


def _put(whole: Any, part: Any, k: int, parts: Partition) -> Any:
    """Write the k-th member's output where its examples are."""
    if not isinstance(part, Tensor):
        return part
    rows, done = len(whole) // len(parts.which), 0
    for start, stop, own in parts.runs:
        if own == k:
            size = rows * (stop - start)
            whole[rows * start : rows * stop].copy_(part[done : done + size])
            done += size
    return whole


def _together(found: Sequence[Any], parts: Partition) -> Any:
    """The inverse of `_taken_apart`, for outputs."""
    if not isinstance(found[0], Tensor):
        return found[0]
    pieces = []
    for k, output in enumerate(found):
        rows = len(output) // max(parts.count(k), 1)
        sizes = [rows * (stop - start) for start, stop, own in parts.runs if own == k]
        pieces.append(list(torch.split(output, sizes)))
    return cat([pieces[k].pop(0) for _, _, k in parts.runs])
