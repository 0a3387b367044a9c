"""Where training began: which base weights, and how they are known again."""

from dataclasses import dataclass
from typing import Literal

from models.adapters.opened import fingerprint as fingerprint
from models.artefacts.published.identity import identify
from models.artefacts.published.sources import commit_of, locate
from models.artefacts.published.weights import load_weights
from models.networks.interface import Network
from models.networks.presets import NetworkError

Part = Literal["network", "encoder"]


@dataclass(frozen=True)
class Base:
    """The weights that training starts from and that no checkpoint repeats."""

    weights: str | None
    """As the user gave it: a path, a Hub id or a known name; None is random."""
    part: Part = "network"
    """`encoder`: only the encoder's part was loaded, the head began at random."""
    commit: str | None = None
    """Of the Hub's repository, where the weights were had from there."""

    @classmethod
    def found(cls, weights: str | None, part: Part = "network") -> "Base":
        """What a user calls weights, with the commit that it means today.

        Raises:
            NetworkError: If they cannot be had.
        """
        commit = None if weights is None else commit_of(locate(weights))
        return cls(weights, part, commit)

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
            known = identify(path)
            known.check(str(path), network.spec, kind=False)
            _check_camera(self.weights, known.canonical_focal_px, network)
        load_weights(network, path, self.part)

    def fingerprint(self, network: Network) -> str:
        """SHA-256 of what was loaded, taken before anything is trained."""
        return fingerprint(network.encoder if self.part == "encoder" else network)

    def kind(self) -> Literal["relative", "metric", "none"]:
        """What the weights predict; `none` where there is no trained head yet."""
        if self.weights is None or self.part == "encoder":
            return "none"
        return identify(locate(self.weights)).kind or "relative"


def _check_camera(weights: str, own_px: float | None, network: Network) -> None:
    """Refuse metres of one camera that would be taken for those of another.

    Weights for any camera may become a canonical network's: training moves them there.

    Raises:
        NetworkError: Saying what to ask for.
    """
    asked_px = network.canonical_focal_px
    if own_px is None or own_px == asked_px or network.spec.kind == "relative":
        return
    raise NetworkError(
        f"{weights} predicts metres of a camera with a focal length of {own_px:g} px, "
        f"not {'of any' if asked_px is None else f'{asked_px:g}'}; set model.camera to "
        f"canonical and model.canonical_focal_px to {own_px:g}"
    )
