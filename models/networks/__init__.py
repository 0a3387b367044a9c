"""Depth networks in plain torch: they see neither Lightning nor adapters."""

from models.networks.depth_network import DepthNetwork
from models.networks.presets import NetworkError, NetworkSpec
from models.networks.pretrained import load_depth_anything

__all__ = ["DepthNetwork", "NetworkError", "NetworkSpec", "load_depth_anything"]
