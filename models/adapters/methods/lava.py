"""LAVA: increments of matrices and kernels as sums of learnable rank-1 terms."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.adapters.base import Adapter, Bottleneck, Orthogonal, WeightShape
from models.adapters.methods.low_rank import (
    LowRankConfig,
    check_rank,
    orthonormal_columns,
    regularised,
)


@dataclass(frozen=True, kw_only=True)
class Lava(LowRankConfig):
    """dW = s * sum_r f1_r o f2_r o ... o fn_r over the n axes of the stored weight.

    For a matrix this is LoRA; for a convolution it is a CP decomposition without any
    reshaping, r (out + in + kh + kw) numbers in place of LoRA's r (out + in kh kw).
    Kernel axes of size 1 have no factor. Source: LAVA (ICML 2026, PMLR 306); what the
    paper leaves open (initialisation, scale, which factors are regularised and how
    strongly) is decided by measurement: docs/method_comparison/report.md, "One change
    each" and "Rank".
    """

    orthogonal: Orthogonal = "both"

    def build(self, shape: WeightShape, weight: Tensor) -> "LavaAdapter":
        check_rank(self.rank, shape)
        return LavaAdapter(shape, self.rank, self.scale)

    def count(self, shape: WeightShape) -> int:
        """rank x (sum of the axes' sizes, kernel axes of size 1 left out)."""
        kernel = sum(size for size in shape.kernel if size > 1)
        return self.rank * (shape.out_size + shape.in_size + kernel)


class LavaAdapter(Adapter):
    """Factors `up` (out, r), `down` (r, in) and one (r, k) per kernel axis.

    `up` starts at zero, so the adapted layer starts as the base; `down` has
    orthonormal rows and each kernel factor unit rows, so the first gradient reaches
    every rank-1 term with the same strength.
    """

    def __init__(self, shape: WeightShape, rank: int, scale: float) -> None:
        super().__init__(shape)
        self.scale = scale
        self.up = nn.Parameter(torch.zeros(shape.out_size, rank))
        basis = orthonormal_columns(shape.in_size, rank)
        self.down = nn.Parameter(basis.T.contiguous())
        self.kernel = nn.ParameterList(
            nn.Parameter(nn.functional.normalize(torch.randn(rank, size), dim=1))
            for size in shape.kernel
            if size > 1
        )

    def bottleneck(self) -> Bottleneck:
        """The product of the kernel factors is a core of one small kernel per term."""
        up = self.shape.all_rows(self.up)
        if not self.kernel:
            down = self.down.view(*self.down.shape, *self.shape.kernel)
            return Bottleneck(down, up, self.scale)
        first, *others = self.kernel
        core: Tensor = first
        for factor in others:
            ones = [1] * (core.ndim - 1)
            core = core[..., None] * factor.view(len(factor), *ones, -1)
        core = core.view(len(core), 1, *self.shape.kernel)
        return Bottleneck(self.down, up, self.scale, core)

    def orthogonal_factors(self, mode: Orthogonal) -> list[Tensor]:
        return regularised(mode, self.shape, self.up, self.down)
