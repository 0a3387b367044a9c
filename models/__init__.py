"""What is learned: networks, adapters, and the modules that train them."""

from models.depth_anything import DepthAnythingModule
from models.dinov2 import DINOv2Module

__all__ = ["DINOv2Module", "DepthAnythingModule"]
