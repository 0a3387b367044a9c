"""LoRA: a low-rank increment of the weight as a matrix."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.adapters.base import (
    Adapter,
    Bottleneck,
    LowRankConfig,
    Orthogonal,
    WeightShape,
)


@dataclass(frozen=True, kw_only=True)
class LoRA(LowRankConfig):
    """dW = s * up . down (Hu et al., LoRA, 2021, equation 3).

    Convolutions in PEFT's convention: `down` is a convolution with the layer's own
    kernel onto r channels, `up` a 1x1 convolution, so rank dW <= r as a matrix
    out x (in . kernel).
    """

    def build(self, shape: WeightShape) -> "LoRAAdapter":
        self.check_rank(shape)
        return LoRAAdapter(shape, self.rank, self.scale)

    def count(self, shape: WeightShape) -> int:
        """Rank x (out + in . kernel)."""
        return self.rank * (shape.out_size + shape.in_size * math.prod(shape.kernel))


class LoRAAdapter(Adapter):
    """Factors `up` (out, r), zero, and `down` (r, in, *kernel), uniform as in PEFT."""

    def __init__(self, shape: WeightShape, rank: int, scale: float) -> None:
        super().__init__(shape, scale)
        self.up = nn.Parameter(torch.zeros(shape.out_size, rank))
        self.down = nn.Parameter(torch.empty(rank, shape.in_size, *shape.kernel))
        # U(+-1/sqrt(fan_in)), the initialisation of loralib and PEFT.
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def bottleneck(self) -> Bottleneck:
        return Bottleneck(self.down, self.up, self.scale)

    def orthogonal_factors(self, mode: Orthogonal) -> list[Tensor]:
        is_conv = math.prod(self.shape.kernel) > 1
        if mode == "none":
            return []
        if mode == "paper" and is_conv:
            return [self.up]
        return [self.up, self.down.flatten(1).mT]
