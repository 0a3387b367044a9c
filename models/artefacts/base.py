"""Where training began: which base weights, and how they are known again."""

from dataclasses import dataclass
from typing import Literal

from models.adapters.opened import fingerprint as fingerprint
from models.artefacts.published.identity import identify
from models.artefacts.published.sources import locate
from models.artefacts.published.weights import load_weights
from models.networks.interface import Network


@dataclass(frozen=True)
class Base:
    """The weights that training starts from and that no checkpoint repeats."""

    weights: str | None
    """As the user gave it: a path, a Hub id or a known name; None is random."""
    part: Literal["network", "encoder"] = "network"
    """`encoder`: only the encoder's part was loaded, the head began at random."""

    def fill(self, network: Network) -> None:
        """Put these weights into a network, in place, whatever kind theirs is.

        A relative base may so become a metric network, whose output the caller begins
        anew (`Network.start_at_depth`).

        Raises:
            NetworkError: If they cannot be had, or are for another network.
        """
        if self.weights is None:
            return
        path = locate(self.weights)
        if self.part == "network":
            identify(path).check(str(path), network.spec, kind=False)
        load_weights(network, path, self.part)

    def fingerprint(self, network: Network) -> str:
        """SHA-256 of what was loaded, taken before anything is trained."""
        return fingerprint(network.encoder if self.part == "encoder" else network)

    def kind(self) -> Literal["relative", "metric", "none"]:
        """What the weights predict; `none` where there is no trained head yet."""
        if self.weights is None or self.part == "encoder":
            return "none"
        return identify(locate(self.weights)).kind or "relative"
