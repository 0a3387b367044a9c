"""An adapter method in one file: every output of a weight scaled by a learnt factor."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.adapters.base import Adapter, AdapterConfig, WeightShape


@dataclass(frozen=True, kw_only=True)
class OutputScale(AdapterConfig):
    """W' = (1 + g) * W, row by row."""

    def build(self, shape: WeightShape, weight: Tensor) -> "OutputScaleAdapter":
        return OutputScaleAdapter(shape)

    def count(self, shape: WeightShape) -> int:
        return shape.out_full


class OutputScaleAdapter(Adapter):
    def __init__(self, shape: WeightShape) -> None:
        super().__init__(shape)
        self.factor = nn.Parameter(torch.zeros(shape.out_full))

    def delta(self, weight: Tensor) -> Tensor:
        axes = [1] * weight.ndim
        axes[self.shape.out_axis] = -1
        return weight * self.factor.view(axes)
