"""LoRA: a low-rank increment of the weight as a matrix."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.adapters.base import Adapter, Bottleneck, Orthogonal, WeightShape
from models.adapters.methods.low_rank import LowRankConfig, check_rank, regularised


@dataclass(frozen=True, kw_only=True)
class LoRA(LowRankConfig):
    """dW = s * up . down (Hu et al., LoRA, 2021, equation 3).

    Convolutions in PEFT's convention: `down` is a convolution with the layer's own
    kernel onto r channels, `up` a 1x1 convolution, so rank dW <= r as a matrix
    out x (in . kernel).
    """

    rank_stabilised: bool = False
    """s = alpha / sqrt(rank) (Kalajdzievski, rsLoRA, 2023, equation 4)."""

    @property
    def scale(self) -> float:
        alpha = self.rank if self.alpha is None else self.alpha
        return alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)

    def build(self, shape: WeightShape, weight: Tensor) -> "LoRAAdapter":
        check_rank(self.rank, shape)
        return LoRAAdapter(shape, self.rank, self.scale)

    def count(self, shape: WeightShape) -> int:
        """rank x (out + in . kernel)."""
        return self.rank * (shape.out_size + shape.in_size * math.prod(shape.kernel))


class LoRAAdapter(Adapter):
    """Factors `up` (out, r), zero, and `down` (r, in, *kernel), uniform as in PEFT."""

    def __init__(self, shape: WeightShape, rank: int, scale: float) -> None:
        super().__init__(shape)
        self.scale = scale
        self.up = nn.Parameter(torch.zeros(shape.out_size, rank))
        self.down = nn.Parameter(torch.empty(rank, shape.in_size, *shape.kernel))
        # U(+-1/sqrt(fan_in)), the initialisation of loralib and PEFT.
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def bottleneck(self) -> Bottleneck:
        return Bottleneck(self.down, self.shape.all_rows(self.up), self.scale)

    def orthogonal_factors(self, mode: Orthogonal) -> list[Tensor]:
        return regularised(mode, self.shape, self.up, self.down)
