"""Parameter-efficient adapters in plain torch; importable without the rest."""

from models.adapters.base import AdapterConfig, AdapterError
from models.adapters.combine import increments, weighted
from models.adapters.inject import (
    Merged,
    adapt,
    adapted_layers,
    adapters,
    disabled,
    is_never_trained,
    merge,
    unmerge,
)
from models.adapters.methods.dora import DoRA
from models.adapters.methods.lava import Lava
from models.adapters.methods.lora import LoRA
from models.adapters.methods.svdiff import SVDiff
from models.adapters.methods.train_fully import TrainFully
from models.adapters.methods.tucker import Tucker
from models.adapters.penalty import orthogonality

__all__ = [
    "AdapterConfig",
    "AdapterError",
    "DoRA",
    "Lava",
    "LoRA",
    "Merged",
    "SVDiff",
    "TrainFully",
    "Tucker",
    "adapt",
    "adapted_layers",
    "adapters",
    "disabled",
    "increments",
    "is_never_trained",
    "merge",
    "orthogonality",
    "unmerge",
    "weighted",
]
