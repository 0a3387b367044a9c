"""Depth networks in plain torch: they see neither Lightning nor adapters."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.artefacts.published.weights import load_depth_anything
    from models.networks.depth_network import DepthNetwork
    from models.networks.presets import NetworkError, NetworkSpec

__all__ = ["DepthNetwork", "NetworkError", "NetworkSpec", "load_depth_anything"]
_HOMES = {
    "DepthNetwork": "models.networks.depth_network",
    "NetworkError": "models.networks.presets",
    "NetworkSpec": "models.networks.presets",
    # Files have a folder of their own, which imports this one.
    "load_depth_anything": "models.artefacts.published.weights",
}


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: a command line knows the presets without torch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
