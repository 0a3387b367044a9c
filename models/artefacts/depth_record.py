"""What a trained depth network says about itself, beside what any adapted one does."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from datamodules.sizes import Shrink
from models.artefacts.depth_facts import depth_facts, licence_of_weights
from models.artefacts.facts import Facts
from models.artefacts.families import network_from_dict, network_to_dict
from models.artefacts.opened import Opened
from models.artefacts.record import Record, shared_fields
from models.networks import DepthNetwork
from models.networks.interface import Network, OutputSpec


@dataclass(frozen=True, kw_only=True)
class DepthRecord(Record[Network]):
    """Everything that rebuilds a trained depth network, but its trained tensors."""

    network: OutputSpec
    """What kind of network, in the terms of its own family."""
    image_size: tuple[int, int]
    """Network input (rows, cols) that it was trained at."""
    image_shrink: Shrink = "area"
    """How larger pictures were brought to it."""
    focals_px: tuple[float, float] | None = None
    """Shortest and longest focal length in training, in pixels of the network's input,
    where the network has a canonical one."""
    family: type[Network] = DepthNetwork
    """The class whose network this is."""

    def build(self) -> Network:
        return self.family(self.network)

    def load_base(self) -> Network:
        network = self.build()
        self.base.fill(network)
        self.check_base(self.base.fingerprint(network))
        return network

    def new_names(self, network: Network) -> tuple[str, ...]:
        return network.new_beside(self.base.part)

    def licence(self) -> str | None:
        weights = self.base.weights
        if weights is None or self.family.licence is not None:
            return self.family.licence
        return licence_of_weights(weights)

    def facts(self) -> Facts:
        return depth_facts(self)

    def opened(self, network: Network, source: str) -> Opened:
        return Opened(network, self, self.image_size, source)

    def own(self) -> dict[str, Any]:
        return {
            **network_to_dict(self.family, self.network),
            "image_size": list(self.image_size),
            "image_shrink": self.image_shrink,
            **({} if self.focals_px is None else {"focals_px": list(self.focals_px)}),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        rows, cols = content["image_size"]
        family, spec = network_from_dict(content)
        return cls(
            network=spec,
            image_size=(rows, cols),
            image_shrink=content.get("image_shrink", "area"),
            focals_px=tuple(content["focals_px"]) if "focals_px" in content else None,
            family=family,
            **shared_fields(content),
        )
