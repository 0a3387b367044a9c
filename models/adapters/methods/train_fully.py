"""No adapter at all: only the layers named by `train_fully` are trained."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from models.adapters.base import Adapter, AdapterConfig, AdapterError, WeightShape


@dataclass(frozen=True, kw_only=True)
class TrainFully(AdapterConfig):
    """Train some layers as they are and freeze the rest: "head only" and the like.

    The same files and commands as for adapters; nothing to merge.
    """

    targets: Sequence[str] | None = ()
    """Stays empty: there is no increment to give a layer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targets or self.parameters:
            raise AdapterError(
                "TrainFully has no increments, so targets and parameters stay empty; "
                "name layers in train_fully"
            )

    def build(self, shape: WeightShape, weight: Tensor) -> Adapter:
        raise AdapterError("TrainFully has no increments")

    def count(self, shape: WeightShape) -> int:
        return 0
