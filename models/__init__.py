"""What is learned: networks, adapters, and the modules that train them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.depth_anything import DepthAnythingModule
    from models.dinov2 import DINOv2Module
    from models.dinov3 import DINOv3Module
    from models.language_module import LanguageModule
    from models.mixed_module import MixedModule
    from models.timm_vit import TimmModule

__all__ = [
    "DINOv2Module",
    "DINOv3Module",
    "DepthAnythingModule",
    "LanguageModule",
    "MixedModule",
    "TimmModule",
]
_HOMES = {
    "DINOv2Module": "dinov2",
    "DINOv3Module": "dinov3",
    "DepthAnythingModule": "depth_anything",
    "LanguageModule": "language_module",
    "MixedModule": "mixed_module",
    "TimmModule": "timm_vit",
}


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: adapters and networks do not wait for Lightning.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
