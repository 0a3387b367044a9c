"""What a service can predict with: a network, or one and its adapters by name.

An adapter has a generation: a number that no other had or will have. A request holds
the one that its name stood for when it came, until it is answered, whatever is loaded
or removed meanwhile.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

from app.prediction.formats import Look
from app.prediction.model import Given
from app.prediction.options import Prediction
from app.serving.refusals import RefusedError
from datamodules.batch import ImageInput
from datamodules.errors import UserError
from datamodules.files.depths.writing import PIXELS_MAX, png_scale
from models.adapters.bank import NAMES
from models.adapters.opened import fingerprint
from models.artefacts.depth_adapter import DepthAdapter
from models.artefacts.form import Opened
from models.depth_bank import DepthBank
from models.networks.interface import DepthPredictor
from models.networks.presets import Unit
from models.router import Router


@dataclass(eq=False)
class Shelved:
    """One generation of an adapter, or the network by itself."""

    name: str | None
    generation: int
    key: str | None
    """What the bank calls it."""
    given: Given
    look: Look
    source: str
    users: int = field(default=0)
    retired: bool = False


class Shelf:
    """The adapters of a service, and the network below them.

    Args:
        network: Ready to predict: a bank, where there may be adapters.
        plain: What counts without an adapter; None if the network alone predicts
            nothing.
        image_input: What the network reads.
        prediction: What was asked for, for all pictures.
        source: What the user calls the network.
        sha256: Of the network.
        router: That chooses among the adapters.
    """

    def __init__(
        self,
        network: DepthPredictor,
        plain: Shelved | None,
        image_input: ImageInput,
        prediction: Prediction,
        source: str,
        sha256: str,
        router: Router | None = None,
    ) -> None:
        self.network, self.plain = network, plain
        self.source, self.router = source, router
        self.image_input, self.prediction, self.sha256 = image_input, prediction, sha256
        self.bank = network if isinstance(network, DepthBank) else None
        self.unit: Unit = "metres" if self.bank is not None else network.unit
        self._lock = threading.Lock()
        self._shelved: dict[str, Shelved] = {}
        self._generation = 0

    @classmethod
    def of_network(cls, opened: Opened, prediction: Prediction) -> "Shelf":
        """A network of any form, without adapters beside it."""
        record, spec = opened.record, opened.network.spec
        given = Given.of(
            spec,
            opened.image_size,
            opened.image_input.shrink,
            record,
            opened.network.patch_px,
            prediction,
        )
        look = _look(spec.max_depth, prediction)
        plain = Shelved(None, 0, None, given, look, opened.source)
        sha256, image_input = opened.fingerprint, opened.image_input
        network = opened.merged()
        return cls(network, plain, image_input, prediction, opened.source, sha256)

    @classmethod
    def of_bank(
        cls, bank: DepthBank, router: Router | None, source: str, prediction: Prediction
    ) -> "Shelf":
        """A bank, with the adapters that are in it.

        Args:
            bank: Its adapters have the names that requests use.
            router: That chooses among them.
            source: What the user calls the network.
            prediction: As above.
        """
        plain = None
        if bank.base is not None and bank.base.kind == "metric":
            shrink = ImageInput().shrink
            args = (bank.base, bank.base_size, shrink, None, bank.patch_px, prediction)
            look = _look(bank.base.max_depth, prediction)
            plain = Shelved(None, 0, None, Given.of(*args), look, source)
        first = bank.record(bank.names[0])
        image_input = ImageInput.of(bank, first.image_shrink)
        sha256 = fingerprint(bank.network)
        shelf = cls(bank, plain, image_input, prediction, source, sha256, router)
        for name in bank.names:
            adapter = bank.opened(name)
            bank.adapters.remove(name)
            shelf.put(name, adapter)
        return shelf

    @property
    def names(self) -> list[str]:
        """Of all adapters."""
        return sorted(self._shelved)

    def all(self) -> list[Shelved]:
        """Every adapter in its present generation."""
        shelved = self._shelved
        return [shelved[name] for name in sorted(shelved)]

    @contextmanager
    def taken(self, name: str | None) -> Iterator[Shelved]:
        """Within the block this generation stays, even if it is removed.

        Raises:
            RefusedError: 404 if there is none of the name.
        """
        with self._lock:
            found = self.plain if name is None else self._shelved.get(name)
            if found is None:
                raise RefusedError(404, self._unknown(name))
            found.users += 1
        try:
            yield found
        finally:
            with self._lock:
                found.users -= 1
                self._drop_if_free(found)

    def put(self, name: str, adapter: DepthAdapter) -> Shelved:
        """Load an adapter under a name; one that had it goes when nothing needs it.

        Raises:
            RefusedError: 409 if there can be none, 422 if it does not fit the network
                or the name is none.
        """
        bank = self._own_bank()
        self.check_name(name)
        with self._lock:
            self._generation += 1
            generation = self._generation
        # No name that a user gives begins like this, and none comes twice.
        key = f"generation {generation}"
        try:
            bank.add(key, adapter)
            record = bank.record(key)
            spec = record.network
            args = (spec, record.image_size, record.image_shrink, record)
            given = Given.of(*args, bank.patch_px, self.prediction, key)
            look = _look(spec.max_depth, self.prediction)
        except UserError as error:
            if key in bank.names:
                bank.adapters.remove(key)
            said = str(error).removeprefix(f"{key}: ")
            raise RefusedError(422, f"adapter {name}: {said}") from None
        found = Shelved(name, generation, key, given, look, adapter.source)
        with self._lock:
            self._retire(self._shelved.get(name))
            self._shelved = {**self._shelved, name: found}
        return found

    def check_name(self, name: str) -> None:
        """Refuse what cannot be a name; none is ever a path.

        Raises:
            RefusedError: 422.
        """
        if not NAMES.fullmatch(name):
            raise RefusedError(
                422,
                f"{name!r} is no name for an adapter; use up to 100 letters, digits, "
                "_, - and spaces",
            )

    def remove(self, name: str) -> Shelved:
        """Let no new request have an adapter.

        Raises:
            RefusedError: 404 if there is none of the name, 409 if there can be none.
        """
        self._own_bank()
        with self._lock:
            found = self._shelved.get(name)
            if found is None:
                raise RefusedError(404, self._unknown(name))
            self._shelved = {n: s for n, s in self._shelved.items() if n != name}
            self._retire(found)
        return found

    def chosen(self, keys: Sequence[str | None]) -> AbstractContextManager[None]:
        """Within the block the network predicts a batch with these."""
        if self.bank is None:
            return nullcontext()
        return self.bank.select(keys)

    def _own_bank(self) -> DepthBank:
        if self.bank is None:
            raise RefusedError(
                409, "this service has one network alone; start it with --adapters DIR"
            )
        return self.bank

    def _unknown(self, name: str | None) -> str:
        there = ", ".join(self.names[:8]) or "none"
        more = f" and {len(self.names) - 8} more" if len(self.names) > 8 else ""
        if name is None:
            return (
                "the network alone predicts no metres; name an adapter with "
                f"?adapter=NAME: {there}{more}"
            )
        if self.bank is None:
            return (
                f"there is no adapter {name!r}: this service has one network alone; "
                "leave adapter out"
            )
        return f"there is no adapter {name!r}; there are {there}{more}"

    def _retire(self, shelved: Shelved | None) -> None:
        if shelved is not None:
            shelved.retired = True
            self._drop_if_free(shelved)

    def _drop_if_free(self, shelved: Shelved) -> None:
        if shelved.retired and not shelved.users and self.bank is not None:
            assert shelved.key is not None
            if shelved.key in self.bank.names:
                self.bank.adapters.remove(shelved.key, when_free=True)


def _look(max_depth: float | None, prediction: Prediction) -> Look:
    """As predict.py has it where all pictures have this network or adapter."""
    reach_m = max_depth or 1.0
    fits = reach_m * 256 <= PIXELS_MAX
    return Look(reach_m, png_scale(reach_m) if fits else 0, prediction.colormap)
