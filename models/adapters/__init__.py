"""Parameter-efficient adapters in plain torch; importable without the rest."""

from models.adapters.base import AdapterConfig, AdapterError
from models.adapters.inject import (
    adapt,
    adapted_layers,
    is_never_trained,
    merge,
    orthogonality,
)
from models.adapters.lava import Lava
from models.adapters.lora import LoRA

__all__ = [
    "AdapterConfig",
    "AdapterError",
    "Lava",
    "LoRA",
    "adapt",
    "adapted_layers",
    "is_never_trained",
    "merge",
    "orthogonality",
]
