"""Parameter-efficient adapters in plain torch; importable without the rest."""

from models.adapters.base import AdapterConfig, AdapterError
from models.adapters.combine import increments, weighted
from models.adapters.folding import Merged, merge, unmerge
from models.adapters.inject import (
    adapt,
    adapted_layers,
    adapters,
    disabled,
    is_never_trained,
)
from models.adapters.methods.dora import DoRA
from models.adapters.methods.lava import Lava
from models.adapters.methods.lora import LoRA
from models.adapters.methods.svdiff import SVDiff
from models.adapters.methods.train_fully import TrainFully
from models.adapters.methods.tucker import Tucker
from models.adapters.penalty import orthogonality
from models.adapters.reach import unreached

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
    "unreached",
    "weighted",
]
