"""Many adapters over one network, and for every example of a batch its own."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from models.adapters.base import AdapterConfig, AdapterError
from models.adapters.inject import adapters
from models.adapters.opened import OpenedAdapter, fingerprint
from models.adapters.penalty import penalty
from models.adapters.prototypes import Prototype, homes, move, twin
from models.adapters.routed import rosters, route
from models.adapters.selection import Member, Roster, Selection, selected, selecting
from models.adapters.trained import settle

NAMES = re.compile(r"[\w-][\w -]{0,99}")


class AdapterBank(nn.Module):
    """Adapters of one network, by name, of any methods, ranks and targets.

    ```python
    bank = AdapterBank(network)
    bank.add("kitchen", open_adapter("runs/kitchen"))
    with bank.select(["kitchen", None, "street"]):  # one for each of three examples
        depth = network(images)
    ```

    The network is frozen, and computes as its base wherever nothing is selected. Its
    layers' first axis is the batch, or the batch times what each example has together
    (windows). A bank's own parameters are those of its adapters.

    Args:
        network: Without adapters; it keeps its state dict, and loses the routing again
            by `close`.

    Raises:
        AdapterError: If it has adapters or a bank already.
    """

    network: nn.Module
    _plain: nn.Module

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        if any(True for _ in adapters(network)) or rosters(network):
            raise AdapterError(
                "the network has adapters already; merge them, or close its bank"
            )
        network.requires_grad_(False)
        # Not registered: its parameters are not the bank's.
        vars(self)["network"] = network
        vars(self)["_plain"] = twin(network)
        self.roster = Roster()
        self.roster.close = self.close
        self.members = nn.Module()
        self._homes = homes(network)
        self._prototypes: list[tuple[AdapterConfig, Prototype]] = []
        # Of those too that batches still run with after they were removed.
        self._origins: WeakKeyDictionary[Member, OpenedAdapter] = WeakKeyDictionary()
        self._sha256: dict[str, str] = {}
        self._hook: RemovableHandle | None = network.register_forward_pre_hook(
            partial(_check_batch, self.roster), with_kwargs=True
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Of all adapters, in the order in which they came."""
        return tuple(self.roster.members)

    def __len__(self) -> int:
        return len(self.roster.members)

    def __contains__(self, name: object) -> bool:
        return name in self.roster.members

    def add(
        self, name: str, adapter: OpenedAdapter, *, trainable: bool = False
    ) -> None:
        """Take in an adapter.

        Args:
            name: What to call it.
            adapter: Its tensors are not copied, unless they are to be trained.
            trainable: Train it on from where it stands, as `adapt` begins one.

        Raises:
            AdapterError: If the name is taken or no name, the adapter is of another
                base, or does not fit the network. The bank is unchanged then.
        """
        self._check_new(name)
        if adapter.base_sha256 is not None:
            own = self._fingerprint(adapter.base_part)
            if own != adapter.base_sha256:
                raise AdapterError(
                    f"{name}: {adapter.source} was trained on a base with SHA-256 "
                    f"{adapter.base_sha256[:12]}..., and the bank's network has "
                    f"{own[:12]}...; give an adapter of the same base"
                )
        tensors = adapter.tensors
        if trainable:
            tensors = {
                name: tensor.detach().clone() for name, tensor in tensors.items()
            }
        try:
            prototype = self._prototype(adapter.config)
            member = prototype.fill(
                self._next_generation(),
                self._homes,
                self._plain.state_dict(keep_vars=True),
                tensors,
            )
        except AdapterError as error:
            raise AdapterError(f"{name}: {adapter.source}: {error}") from None
        if trainable:
            member.train_on()
        self._origins[member] = replace(adapter, tensors={})
        self._enter(name, member)

    def adapt(self, name: str, config: AdapterConfig) -> None:
        """Begin an adapter that is to be trained, as `adapt` would on a network.

        Its parameters, and those of layers trained in full, want a gradient and get one
        in batches that it is selected in; in others it is None.

        Raises:
            AdapterError: As for `add`.
        """
        self._check_new(name)
        with self.roster.preparing:
            if move(self._plain, self.network):
                self._prototypes.clear()
            prototype = Prototype.of(twin(self._plain), config)
        member = prototype.begin(self._next_generation(), self._homes)
        base = self._fingerprint("")
        self._origins[member] = OpenedAdapter(config, {}, base, source=name)
        self._enter(name, member)

    def remove(self, name: str, *, when_free: bool = False) -> None:
        """Take an adapter out.

        Args:
            name: Of an adapter.
            when_free: Do so also while batches are computed with it: they end with it,
                new ones cannot select it, and its memory is freed with the last.

        Raises:
            AdapterError: If there is none of this name, or it is in use.
        """
        roster = self.roster
        with roster.lock:
            member = roster.find(name)
            if member.users and not when_free:
                raise AdapterError(
                    f"{name} is in use by {member.users} running batches; remove it "
                    "after them, or with when_free=True"
                )
            self._replace({n: m for n, m in roster.members.items() if n != name})

    def rename(self, old: str, new: str) -> None:
        """Call an adapter by another name; running batches keep it.

        Raises:
            AdapterError: If there is none of the old name, or the new one is taken.
        """
        with self.roster.lock:
            self.roster.find(old)
            self._check_new(new)
            named = self.roster.members.items()
            self._replace({new if n == old else n: m for n, m in named})

    def generation(self, name: str) -> int:
        """Which entry of this bank an adapter is; no number comes twice."""
        return self.roster.find(name).generation

    def origins(self) -> tuple[OpenedAdapter | None, ...]:
        """What is selected now: where each came from, without tensors, None the base.

        One for each example of the batch, or a single one for any batch.
        """
        selection = selected(self.roster)
        chosen = (None,) if selection is None else selection.members
        return tuple(None if m is None else self._origins[m] for m in chosen)

    def opened(self, name: str) -> OpenedAdapter:
        """An adapter as it is now, apart from the network: what `add` took, and takes.

        Raises:
            AdapterError: If there is none of this name.
        """
        member = self.roster.find(name)
        tensors = {n: t.detach() for n, t in member.state_dict().items()}
        return replace(self._origins[member], tensors=tensors)

    def save(self, name: str, folder: Path) -> None:
        """Write an adapter as a folder of its own, bit by bit what it is here.

        Raises:
            AdapterError: If there is none of this name, or it was made in memory.
        """
        self.opened(name).save(folder)

    @contextmanager
    def select(
        self, names: str | Sequence[str | None] | None, *, everywhere: bool = False
    ) -> Iterator[None]:
        """Within the block the network computes with these adapters.

        Selections nest, and each thread and task has its own. Where activations are
        computed again in backward (checkpointing), that belongs into the block, too.

        Args:
            names: One for each example of the batch, None for the base; or a single one
                for all.
            everywhere: Let it hold in threads that have selected nothing, too: on a GPU
                autograd computes activations again in threads of its own. For training
                alone, which has the network for itself.

        Raises:
            AdapterError: If there is none of a name; when the network is called, if the
                batch has another size.
        """
        for_all = names is None or isinstance(names, str)
        asked = [names] if names is None or isinstance(names, str) else list(names)
        roster = self.roster
        with roster.lock:
            members = [None if name is None else roster.find(name) for name in asked]
            selection = Selection(members, for_all=for_all)
            for member in selection.distinct:
                if member is not None:
                    member.users += 1
        before = roster.everywhere
        try:
            if everywhere:
                roster.everywhere = selection
            with selecting(roster, selection):
                yield
        finally:
            roster.everywhere = before if everywhere else roster.everywhere
            with roster.lock:
                for member in selection.distinct:
                    if member is not None:
                        member.users -= 1

    def orthogonality(self) -> dict[str, Tensor]:
        """The penalties of the adapters that are selected, each its own, by name."""
        selection = selected(self.roster)
        chosen = () if selection is None else selection.distinct
        found = {}
        for name, member in self.roster.members.items():
            if member in chosen:
                config = self._origins[member].config
                own = penalty((a for _, a in adapters(member)), config)
                if own is not None:
                    found[name] = own
        return found

    def close(self, name: str | None = None) -> None:
        """Leave the network as one adapter alone would have it, or plain; in place.

        The bank is empty then. What a single adapter can, the network now can: merging,
        export, training.

        Raises:
            AdapterError: If there is no such adapter, or any is in use.
        """
        with self.roster.lock:
            member = None if name is None else self.roster.find(name)
            busy = [n for n, m in self.roster.members.items() if m.users]
            if busy:
                raise AdapterError(f"{busy[0]} is in use by running batches")
            self._replace({})
        settle(self.network, member)
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _check_new(self, name: str) -> None:
        if self._hook is None:
            raise AdapterError("the bank is closed; make another one of the network")
        if name in self.roster.members:
            raise AdapterError(
                f"the bank has an adapter {name!r} already; remove or rename it first"
            )
        if not NAMES.fullmatch(name):
            raise AdapterError(
                f"{name!r} is no name for an adapter; use up to 100 letters, digits, "
                "_, - and spaces"
            )

    def _next_generation(self) -> int:
        with self.roster.lock:
            self.roster.generations += 1
            return self.roster.generations

    def _enter(self, name: str, member: Member) -> None:
        modules = dict(self.network.named_modules())
        with self.roster.lock:
            self._check_new(name)
            for key in member.places:
                route(key, modules[key], self.roster)
            self._replace({**self.roster.members, name: member})

    def _replace(self, members: dict[str, Member]) -> None:
        self.roster.members = members
        # By its dictionary: `add_module` refuses names like "type" or "half".
        vars(self.members)["_modules"] = members

    def _prototype(self, config: AdapterConfig) -> Prototype:
        with self.roster.preparing:
            if move(self._plain, self.network):
                self._prototypes.clear()
            for known, prototype in self._prototypes:
                if known == config:
                    return prototype
            made = Prototype.of(twin(self._plain), config)
            self._prototypes.append((config, made))
            return made

    def _fingerprint(self, part: str) -> str:
        with self.roster.preparing:
            if part not in self._sha256:
                self._sha256[part] = fingerprint(self._plain.get_submodule(part))
            return self._sha256[part]


def _check_batch(
    roster: Roster,
    network: nn.Module,
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> None:
    """Compare the size of a batch with what is selected for it."""
    selection = selected(roster)
    if selection is None or selection.size is None:
        return
    first = next((t for t in (*args, *kwargs.values()) if isinstance(t, Tensor)), None)
    if first is not None and first.ndim and len(first) != selection.size:
        raise AdapterError(
            f"{selection.size} adapters are selected for a batch of {len(first)}; "
            "name one for each example, or a single one for all"
        )
    selection.entered = True
