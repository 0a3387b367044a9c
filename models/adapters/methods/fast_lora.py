"""Fast LoRA: the weight multiplied, entry by entry, by a low-rank matrix."""

from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor, nn

from models.adapters.base import (
    Adapter,
    AdapterConfig,
    AdapterError,
    Multiplied,
    WeightShape,
    check_patterns,
    full_precision,
)
from models.adapters.methods.low_rank import check_rank, first_match

TIE_BREAKS, STEPS = 8, 128
"""Starts of ranks differ by up to 8 / 128: exact in every dtype, as is their sum."""


@dataclass(frozen=True, kw_only=True)
class FastLoRA(AdapterConfig):
    """W' = (mean_r a_r b_r^T) o W (Wen and Chaudhuri, 2024, equations 4 to 6).

    "Batched Low-Rank Adaptation of Foundation Models": made so that every example of a
    batch can have its own adapter, y = mean_r a_r o ((b_r o x) W), one product a rank.
    Of a convolution a goes over the outputs and b over the inputs, whatever the kernel,
    so the equation holds as it stands, geometry and all. The bias is left alone. It
    wants 30 to 80 times LoRA's learning rate (their sections 4.1 and 4.2).
    """

    rank: int = 1
    """Number of terms that the mean is taken over, at least 1."""
    rank_pattern: dict[str, int] = field(default_factory=dict)
    """Another rank for the layers that a pattern matches; the first match holds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for rank in (self.rank, *self.rank_pattern.values()):
            if rank < 1:
                raise AdapterError(f"rank {rank} must be at least 1")
        check_patterns("rank_pattern", list(self.rank_pattern))

    def for_layer(self, name: str) -> Self:
        own = first_match(self.rank_pattern, name)
        return replace(self, rank=self.rank if own is None else own, rank_pattern={})

    def patterns(self) -> tuple[str, ...]:
        return tuple(self.rank_pattern)

    def build(self, shape: WeightShape, weight: Tensor) -> "FastLoRAAdapter":
        check_rank(self.rank, shape)
        return FastLoRAAdapter(shape, self.rank)

    def count(self, shape: WeightShape) -> int:
        """rank x (out + in)."""
        return self.rank * (shape.out_full + shape.in_size)


class FastLoRAAdapter(Adapter):
    """Factors `up` (out, r), the paper's a, and `down` (r, in), its b.

    The paper does not say how they start. Here b is 1 and the a_r are 1 on average, so
    the layer starts as its base to the bit; equal terms would have equal gradients for
    ever, so that of each two ranks one starts a little above and one below.
    """

    def __init__(self, shape: WeightShape, rank: int) -> None:
        super().__init__(shape)
        up = torch.ones(shape.out_full, rank)
        pairs = rank // 2
        tie_breaks = torch.randint(-TIE_BREAKS, TIE_BREAKS + 1, (len(up), pairs))
        up[:, :pairs] += tie_breaks / STEPS
        up[:, pairs : 2 * pairs] -= tie_breaks / STEPS
        self.up = nn.Parameter(up)
        self.down = nn.Parameter(torch.ones(rank, shape.in_size))

    def multiplied(self) -> Multiplied | None:
        """Only one rank: more take more products than the dense W' and its gradient."""
        if self.up.shape[1] > 1:
            return None
        return Multiplied(self.up[:, 0], self.down[0])

    def delta(self, weight: Tensor) -> Tensor:
        with full_precision(weight):
            mean = self.up @ self.down / len(self.down)
            axes = [1] * weight.ndim
            axes[self.shape.out_axis], axes[self.shape.in_axis] = mean.shape
            turned = self.shape.out_axis > self.shape.in_axis
            factor = (mean.mT if turned else mean).reshape(axes)
            return weight.to(mean) * (factor - 1)
