"""What a file of trained tensors has to say about itself to be worth anything.

`Record` is what is true of any adapted network; what is depth's own is in
`depth_record.py`.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from torch import Tensor, nn

from models.adapters import AdapterConfig, adapt
from models.adapters.state import adapter_names, config_of, describe
from models.artefacts.base import Base
from models.artefacts.descriptions import FORMAT_VERSION
from models.artefacts.facts import Facts
from models.artefacts.files import misfits, not_finite, shapes_of
from models.errors import CheckpointError

if TYPE_CHECKING:
    from models.artefacts.opened import OpenedModel

N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Record(ABC, Generic[N]):
    """Everything that rebuilds a trained network, but its trained tensors."""

    network: Any
    """What kind of network, in the terms of its own family."""
    base: Base
    base_sha256: str
    adapter: AdapterConfig | None
    """None: the whole network was trained."""
    scores: dict[str, Any] = field(default_factory=dict)
    """Of the last validation; empty before one."""

    def __post_init__(self) -> None:
        if self.adapter is not None:
            describe(self.adapter)  # refused now, and not after training

    @abstractmethod
    def build(self) -> N:
        """A random network of the recorded kind."""

    @abstractmethod
    def load_base(self) -> N:
        """The same with the base's weights, and the base checked (`check_base`)."""

    @abstractmethod
    def new_names(self, network: N) -> tuple[str, ...]:
        """Prefixes of what may have been new when training began."""

    @abstractmethod
    def own(self) -> dict[str, Any]:
        """What a subclass adds to `to_dict`; `network` stands there."""

    @abstractmethod
    def licence(self) -> str | None:
        """Of the base weights; None where it is not known."""

    @abstractmethod
    def facts(self) -> Facts:
        """What a model card says."""

    @abstractmethod
    def opened(self, network: N, source: str) -> "OpenedModel":
        """The network, as what opens files hands it on."""

    @classmethod
    @abstractmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, so that files load without unpickling classes."""
        return {
            "format_version": FORMAT_VERSION,
            **self.own(),
            "base": dataclasses.asdict(self.base),
            "base_sha256": self.base_sha256,
            "adapter": None if self.adapter is None else describe(self.adapter),
            "scores": self.scores,
        }

    def on(self, weights: str | None) -> Self:
        """The same on the base that a user names; None leaves its own.

        Raises:
            CheckpointError: If the whole network was trained.
        """
        if weights is None:
            return self
        if self.adapter is None:
            raise CheckpointError(
                f"--base {weights} has no effect on a whole network; leave it out"
            )
        return dataclasses.replace(self, base=self._base(weights))

    def _base(self, weights: str) -> Base:
        """Other weights in the base's place."""
        return Base.found(weights, self.base.part)

    def restore(self, tensors: Mapping[str, Tensor]) -> N:
        """Load the base, put the adapter in, and fill in the trained tensors.

        Raises:
            CheckpointError: If the base is another one or a tensor does not fit.
        """
        if self.base.weights is None and self.adapter is not None:
            raise CheckpointError(
                "its frozen base was random and is not stored; train from real weights"
            )
        network = self.adapted()
        self.check_tensors(network, tensors)
        if wrong := not_finite(tensors):
            raise CheckpointError(f"it holds NaN or infinite numbers in {wrong}")
        network.load_state_dict(tensors, strict=False)
        return network

    def adapted(self) -> N:
        """The network with its adapter in place, before anything was trained."""
        if self.adapter is None:
            return self.build()
        network = self.load_base()
        adapt(network, self.adapter)
        return network

    def check_base(self, sha256: str) -> None:
        """Refuse a base that is not the one of this record.

        Where there is no adapter every tensor is stored, and the base is history.
        """
        if self.adapter is not None and sha256 != self.base_sha256:
            raise CheckpointError(
                f"it was trained on a base with SHA-256 {self.base_sha256[:12]}..., "
                f"and the weights of {self.base.weights or 'random'} have "
                f"{sha256[:12]}...; give the same base"
            )

    def check_tensors(self, network: N, tensors: Mapping[str, Tensor]) -> None:
        """Refuse missing, unexpected and misshapen tensors before any is loaded."""
        state = network.state_dict()
        expected = {name: state[name] for name in self.saved_names(network)}
        if problems := misfits(shapes_of(expected), tensors):
            raise CheckpointError(
                f"its tensors do not fit this configuration: {'; '.join(problems)}; "
                "use the configuration it was trained with"
            )

    def saved_names(self, network: N) -> list[str]:
        """State-dict keys that a file holds: all that the base does not give.

        Those are the trained tensors and the parts that were new when training began.
        """
        state = list(network.state_dict())
        if self.adapter is None:
            return state
        new = self.new_names(network)
        return adapter_names(network, (name for name in state if name.startswith(new)))


def shared_fields(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `Record` from what `to_dict` gave."""
    adapter = content["adapter"]
    return {
        "base": Base(**content["base"]),
        "base_sha256": content["base_sha256"],
        "adapter": None if adapter is None else config_of(adapter),
        "scores": content.get("scores", {}),
    }
