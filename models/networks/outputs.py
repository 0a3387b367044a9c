"""From the last layer's logits to depth, and which logit a depth has."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from models.networks.presets import Unit


class Output(ABC):
    """What a network makes of its logits."""

    unit: Unit
    scales: ClassVar[bool] = False
    """Whether adding to the logits multiplies the depth."""
    saturates: ClassVar[bool] = False
    """Whether it ends at max_depth."""

    @abstractmethod
    def __call__(self, logits: Tensor) -> Tensor:
        """Depth or disparity, of the logits' shape."""

    @abstractmethod
    def logit(self, depth: float) -> float:
        """Whose depth this is, metres."""


class Saturating(Output):
    """Sigmoid x max_depth, metres: Depth Anything v1 and v2."""

    unit = "metres"
    saturates = True

    def __init__(self, max_depth: float) -> None:
        self.max_depth = max_depth

    def __call__(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits) * self.max_depth

    def logit(self, depth: float) -> float:
        return math.log(depth / (self.max_depth - depth))


class Disparity(Output):
    """ReLU, affine disparity: their relative networks."""

    unit = "disparity"

    def __call__(self, logits: Tensor) -> Tensor:
        return torch.relu(logits)

    def logit(self, depth: float) -> float:
        return 1 / depth


class Exponential(Output):
    """exp, without an end: Depth Anything 3, `model/dpt.py`."""

    scales = True

    def __init__(self, unit: Unit) -> None:
        self.unit = unit

    def __call__(self, logits: Tensor) -> Tensor:
        return torch.exp(logits)

    def logit(self, depth: float) -> float:
        return math.log(depth)
