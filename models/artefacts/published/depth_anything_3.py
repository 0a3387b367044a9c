"""Names in Depth Anything 3's files, and which of its networks they belong to.

Its wrapper (`api.py: DepthAnything3`) has the network as `model`, so that published
files have `model.` before every name; what its training wrote has not.
"""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from models.networks.presets import NetworkError, NetworkSpec

_PAIRS = (("pretrained.", "backbone.pretrained."), ("depth_head.", "head."))
WRAPPED = "model."
MODEL_NAME = "model_name"
"""In its `config.json`."""
OFFICIAL = re.compile(r"\bda3(?P<v3>mono|metric)-large\b", re.IGNORECASE)
ANY_VIEW = re.compile(r"^da3(nested)?-(small|base|large|giant)")
CANONICAL_FOCAL_PX = 300.0
"""Of DA3METRIC-LARGE (its README, FAQ): metres = focal x output / 300."""
SKY_DEPTH = 200.0
"""Metres of the sky in its own metric predictions (`model/da3.py: sky_depth_def`)."""
_OTHERS_PARTS = ("camera_token", "cam_dec.", "cam_enc.", "_aux.", ".q_norm.")


def official_name(name: str) -> str:
    """A name of ours in its files, without the wrapper."""
    for ours, theirs in _PAIRS:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def is_official(names: Iterable[str]) -> bool:
    """Whether the names of some tensors are of its files."""
    return any("backbone.pretrained." in name for name in names) and not any(
        "depth_head." in name for name in names
    )


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Its names, without the wrapper, to ours."""
    renamed = {}
    for name, value in state.items():
        pairs = ((o, t) for o, t in _PAIRS if name.startswith(t))
        ours, theirs = next(pairs, ("", ""))
        renamed[ours + name.removeprefix(theirs)] = value
    return renamed


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names to its files', wrapper and all."""
    return {WRAPPED + official_name(name): value for name, value in state.items()}


def spec_of(official: re.Match[str]) -> NetworkSpec:
    """The network that its monocular files are published for."""
    if official["v3"].lower() == "mono":
        return NetworkSpec("L", "v3", "relative")
    return NetworkSpec("L", "v3", "metric", SKY_DEPTH, CANONICAL_FOCAL_PX)


def model_name(spec: NetworkSpec) -> str:
    """What its own code calls a network like this."""
    return "da3metric-large" if spec.kind == "metric" else "da3mono-large"


def check_monocular(source: str, names: Iterable[str], called: str = "") -> None:
    """Refuse its networks for any number of views, which are built otherwise.

    Args:
        source: For the message.
        names: Of tensors.
        called: As its `config.json` calls the network.

    Raises:
        NetworkError: Naming those that can be had.
    """
    parts = (part in name for name in names for part in _OTHERS_PARTS)
    if ANY_VIEW.match(called.lower()) or any(parts):
        raise NetworkError(
            f"{source} holds a Depth Anything 3 network for any number of views"
            f"{f' ({called})' if called else ''}, which is not built here; give "
            "DA3MONO-LARGE or DA3METRIC-LARGE"
        )
