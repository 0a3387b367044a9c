"""Depth networks in plain torch: they see neither Lightning nor adapters."""

from typing import TYPE_CHECKING, Any

from models.networks.depth_network import DepthNetwork
from models.networks.presets import NetworkError, NetworkSpec

if TYPE_CHECKING:
    from models.artefacts.published.weights import load_depth_anything

__all__ = ["DepthNetwork", "NetworkError", "NetworkSpec", "load_depth_anything"]


def __getattr__(name: str) -> Any:
    # Where loading was before files had a folder of their own; imported when it is
    # asked for, because that folder imports this one.
    if name == "load_depth_anything":
        from models.artefacts.published.weights import load_depth_anything

        return load_depth_anything
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
