"""Tucker-FLoRA: a dense core between one factor per axis of the weight."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.adapters.base import (
    Adapter,
    Bottleneck,
    Orthogonal,
    WeightShape,
    full_precision,
    whole,
)
from models.adapters.methods.low_rank import LowRankConfig, check_rank, regularised


@dataclass(frozen=True, kw_only=True)
class Tucker(LowRankConfig):
    """dW = s * G x1 U_out x2 U_in x3 U_kernel ... (FLoRA, Si et al. 2024, equation 5).

    The rank of the out and in axes is `rank`, that of each kernel axis `kernel_rank`,
    none more than the axis has entries.
    """

    alpha: float | None = None
    """The scale s itself, not divided by the rank; null takes 4, FLoRA's example."""
    kernel_rank: int = 2
    """Rank of each kernel axis."""

    def __post_init__(self) -> None:
        super().__post_init__()
        rank = whole("kernel_rank", self.kernel_rank)
        object.__setattr__(self, "kernel_rank", rank)

    @property
    def scale(self) -> float:
        return 4.0 if self.alpha is None else self.alpha

    def ranks(self, shape: WeightShape) -> tuple[int, ...]:
        """Ranks of the out, in and kernel axes."""
        outer = (min(self.rank, shape.out_size), min(self.rank, shape.in_size))
        return (*outer, *(min(self.kernel_rank, size) for size in shape.kernel))

    def build(self, shape: WeightShape, weight: Tensor) -> "TuckerAdapter":
        check_rank(self.rank, shape)
        return TuckerAdapter(shape, self.ranks(shape), self.scale)

    def count(self, shape: WeightShape) -> int:
        """Product of the ranks, and rank x size summed over the axes."""
        ranks = self.ranks(shape)
        sizes = (shape.out_size, shape.in_size, *shape.kernel)
        return math.prod(ranks) + sum(r * n for r, n in zip(ranks, sizes, strict=True))


class TuckerAdapter(Adapter):
    """`core` (r_out, r_in, *r_kernel), zero, and factors of each axis.

    `up` (out, r_out), `down` (r_in, in), `kernel.j` (r_j, k_j): kaiming normal with
    a = sqrt(3) over the rank, so their deviation is sqrt(0.5 / rank), as in FLoRA's
    code. Only the core has a gradient in the first step.
    """

    def __init__(
        self, shape: WeightShape, ranks: tuple[int, ...], scale: float
    ) -> None:
        super().__init__(shape)
        self.scale = scale
        self.core = nn.Parameter(torch.zeros(ranks))

        def factor(size: int, rank: int) -> Tensor:
            return torch.randn(size, rank) * math.sqrt(0.5 / rank)

        self.up = nn.Parameter(factor(shape.out_size, ranks[0]))
        self.down = nn.Parameter(factor(shape.in_size, ranks[1]).T.contiguous())
        self.kernel = nn.ParameterList(
            nn.Parameter(factor(size, rank).T.contiguous())
            for size, rank in zip(shape.kernel, ranks[2:], strict=True)
        )

    def bottleneck(self) -> Bottleneck:
        """A kernel's core is the core times the kernel factors, a matrix has none."""
        up, core = self.shape.all_rows(self.up), self.core
        with full_precision(core):
            if not self.kernel:
                return Bottleneck(core @ self.down, up, self.scale)
            for factor in self.kernel:
                # Takes the first remaining axis of ranks and appends the weight's.
                core = torch.tensordot(core, factor, dims=([2], [0]))
        return Bottleneck(self.down, up, self.scale, core)

    def orthogonal_factors(self, mode: Orthogonal) -> list[Tensor]:
        return regularised(mode, self.shape, self.up, self.down)
