"""Which adapter of a bank each example of a batch takes, where the computation runs.

The choice is a context variable: it nests, every thread and task has its own, and a
network holds none of it. What is chosen is a `Member`, one generation of one adapter,
so that a batch keeps computing with what it began with.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from models.adapters.base import Adapter, AdapterError, WeightShape


@dataclass(frozen=True)
class Place:
    """What a member does at one module of the network."""

    adapter: str | None
    """Name of the member's adapter that acts there."""
    dropout_p: float
    own: Mapping[str, str]
    """Attributes of the module to the member's tensors that stand for them."""


class Member(nn.Module):
    """One generation of one adapter of a bank.

    Its state dict has the names that an adapter has in a network of its own. They have
    dots, so they are entered past `add_module`: a tree of modules for 70 layers would
    take as much memory as their tensors.
    """

    def __init__(
        self,
        generation: int,
        adapters: Mapping[str, Adapter],
        own: Mapping[str, nn.Parameter | Tensor],
        places: Mapping[str, Place],
        trained: frozenset[str],
    ) -> None:
        super().__init__()
        self.generation, self.places = generation, places
        self.trained = trained
        """Names of the parameters of layers trained in full."""
        self.users = 0
        """Batches that are being computed with it."""
        self.gains: dict[str, tuple[tuple[object, ...], Tensor]] = {}
        """What DoRA's norms came to, of a member that is not trained."""
        for name, adapter in adapters.items():
            self._modules[f"{name}.adapter"] = adapter
        for name, tensor in own.items():
            if isinstance(tensor, nn.Parameter):
                self._parameters[name] = tensor
            else:
                self._buffers[name] = tensor

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        # torch takes what is before a name's first dot for the name of a module.
        strange: list[str] = []
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            strange,
            error_msgs,
        )
        own = {prefix + name for name in self.state_dict()}
        unexpected_keys += [name for name in strange if name not in own]

    def train_on(self) -> None:
        """Let everything want a gradient that training changes."""
        for adapter in self.children():
            adapter.requires_grad_(True)
        for name in self.trained:
            self._parameters[name].requires_grad_(True)  # type: ignore[union-attr]

    def adapter(self, name: str) -> Adapter:
        """The adapter of a layer, which tied ones have by the name of the first."""
        return self._modules[f"{name}.adapter"]  # type: ignore[return-value]

    def tensor(self, name: str) -> Tensor | None:
        """One of its own tensors, as it is now."""
        found = self._parameters.get(name)
        return self._buffers.get(name) if found is None else found


class Roster:
    """The members of one bank; layers know it, and nothing else of the bank."""

    def __init__(self) -> None:
        self.members: Mapping[str, Member] = {}
        """Replaced as a whole, never changed, so it may be read without the lock."""
        self.lock = threading.Lock()
        self.preparing = threading.Lock()
        """While adapters are made ready to enter."""
        self.generations = 0
        self.everywhere: Selection | None = None
        """What holds in threads where nothing was selected: those of autograd."""
        self.close: Callable[[str | None], None] | None = None
        """The bank's own `close`."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy of a network stays under the same bank."""
        return self

    def find(self, name: str) -> Member:
        """The member of this name.

        Raises:
            AdapterError: If there is none.
        """
        member = self.members.get(name)
        if member is None:
            known = ", ".join(sorted(self.members)[:8]) or "none"
            more = f" and {len(self.members) - 8} more" if len(self.members) > 8 else ""
            raise AdapterError(
                f"the bank has no adapter {name!r}; it has {known}{more}"
            )
        return member


class Partition(NamedTuple):
    """The examples of a batch by what they have at one module."""

    members: tuple[Member | None, ...]
    """Each different one once."""
    which: tuple[int, ...]
    """For each example the place in `members`."""
    runs: tuple[tuple[int, int, int], ...]
    """Neighbours that have the same: first, last + 1, place in `members`."""

    def count(self, k: int) -> int:
        """How many examples have the k-th."""
        return self.which.count(k)


class Selection:
    """What `select` was asked for: a member or None for each example, or for all."""

    def __init__(self, members: Sequence[Member | None], *, for_all: bool) -> None:
        self.members = tuple(members)
        self.distinct = tuple(dict.fromkeys(self.members)) or (None,)
        self.size = None if for_all else len(self.members)
        """Of the batch that it is for; None for any."""
        self.is_single = len(self.distinct) == 1
        """Whether all examples have the same."""
        self.entered = False
        """Whether the network itself was called with a batch of that size."""
        self._partitions: dict[tuple[bool, ...], Partition] = {}

    def partition(self, key: str) -> Partition:
        """The examples by what they have at the module `key`."""
        there = tuple(m is not None and key in m.places for m in self.distinct)
        if there not in self._partitions:
            acting = dict(zip(self.distinct, there, strict=True))
            chosen = [m if acting[m] else None for m in self.members]
            self._partitions[there] = partition(chosen)
        return self._partitions[there]

    def rows_each(self, first_axis: int) -> int:
        """Rows of a tensor's first axis that belong to each example.

        Within the network an example may have several, together: windows, or tokens.

        Raises:
            AdapterError: If the batch has another size than the selection.
        """
        size = len(self.members)
        if first_axis == size or (
            self.entered and first_axis and first_axis % size == 0
        ):
            return first_axis // size
        raise AdapterError(
            f"{size} adapters are selected for a batch of {first_axis}; name one for "
            "each example, or a single one for all"
        )


def partition(chosen: Sequence[Member | None]) -> Partition:
    """Sort out who has what."""
    members = tuple(dict.fromkeys(chosen))
    place = {member: k for k, member in enumerate(members)}
    which = tuple(place[member] for member in chosen)
    starts = [i for i in range(len(which)) if i == 0 or which[i] != which[i - 1]]
    ends = [*starts[1:], len(which)]
    runs = tuple((i, j, which[i]) for i, j in zip(starts, ends, strict=True))
    return Partition(members, which, runs)


_SELECTED: ContextVar[Mapping[Roster, Selection]] = ContextVar("selected")
_NOTHING: Mapping[Roster, Selection] = {}


def selected(roster: Roster) -> Selection | None:
    """What is selected of this bank, here and now; None for the base."""
    return _SELECTED.get(_NOTHING).get(roster, roster.everywhere)


@contextmanager
def selecting(roster: Roster, selection: Selection) -> Iterator[None]:
    """Within the block this holds, and what held before after it."""
    token = _SELECTED.set({**_SELECTED.get(_NOTHING), roster: selection})
    try:
        yield
    finally:
        _SELECTED.reset(token)


def narrowed(roster: Roster, member: Member | None) -> AbstractContextManager[None]:
    """Within the block one member counts for every example."""
    return selecting(roster, Selection([member], for_all=True))


class Idle(Adapter):
    """Stands where a module has no adapter."""

    def __init__(self) -> None:
        super().__init__(WeightShape((0, 0)))

    def acts(self) -> bool:
        return False


IDLE = Idle()


def cat(tensors: Sequence[Tensor]) -> Tensor:
    """`torch.cat` along the first axis, which of one tensor copies nothing."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
