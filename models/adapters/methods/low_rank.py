"""Options and initialisation that all methods with a rank have in common."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self, TypeVar, get_args

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from models.adapters.base import (
    AdapterConfig,
    AdapterError,
    Chunks,
    Orthogonal,
    WeightShape,
    check_patterns,
    number,
    whole,
)

N = TypeVar("N", int, float)


@dataclass(frozen=True, kw_only=True)
class LowRankConfig(AdapterConfig):
    """Options of the methods whose increment has a rank."""

    rank: int = 8
    """Number of rank-1 terms, at least 1."""
    alpha: float | None = None
    """The increment is scaled by alpha / rank; null means alpha = rank."""
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    """Another rank for the layers that a pattern matches; the first match holds."""
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    """Another alpha, likewise."""
    qkv: Chunks = "qkv"
    """Which parts of fused layers called `qkv` are adapted, such as "qv"."""
    dropout: float = 0.0
    """Probability of dropping an input of the increment in training."""
    orthogonal: Orthogonal = "none"
    """Which factors the penalty keeps orthonormal. `both`: out and in factors;
    `paper`: only the out factor of convolutions; `offdiag`: both, but only the angles
    between columns, not their lengths; `none`: no penalty."""
    orthogonal_weight: float = 0.1
    """Factor of the penalty in the loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rank_pattern", "alpha_pattern"):
            if not isinstance(getattr(self, name), Mapping):
                raise AdapterError(
                    f"{name} {getattr(self, name)!r} must map patterns to numbers"
                )
        object.__setattr__(self, "rank", whole("rank", self.rank))
        ranks = {name: whole("rank", rank) for name, rank in self.rank_pattern.items()}
        object.__setattr__(self, "rank_pattern", ranks)
        for alpha in (self.alpha, *self.alpha_pattern.values()):
            if alpha is not None:
                number("alpha", alpha, lambda a: 0 < a < math.inf, "a number above 0")
        check_patterns("rank_pattern", list(self.rank_pattern))
        check_patterns("alpha_pattern", list(self.alpha_pattern))
        for name, kind in (("orthogonal", Orthogonal), ("qkv", Chunks)):
            if getattr(self, name) not in get_args(kind):
                raise AdapterError(
                    f"{name} {getattr(self, name)!r} is not known; "
                    f"use one of {', '.join(get_args(kind))}"
                )
        weight, dropout = self.orthogonal_weight, self.dropout
        number("orthogonal_weight", weight, lambda w: 0 <= w < math.inf, "0 or more")
        number("dropout", dropout, lambda p: 0 <= p < 1, "from 0 to below 1")

    @property
    def scale(self) -> float:
        """s = alpha / rank (Hu et al., LoRA, 2021, section 4.1)."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    @property
    def dropout_p(self) -> float:
        return self.dropout

    def for_layer(self, name: str) -> Self:
        rank = first_match(self.rank_pattern, name)
        alpha = first_match(self.alpha_pattern, name)
        return replace(
            self,
            rank=self.rank if rank is None else rank,
            alpha=self.alpha if alpha is None else alpha,
            rank_pattern={},
            alpha_pattern={},
        )

    def patterns(self) -> tuple[str, ...]:
        return (*self.rank_pattern, *self.alpha_pattern)

    def chunks_of(self, name: str) -> Chunks:
        return self.qkv if name.rsplit(".", 1)[-1] == "qkv" else "qkv"


def check_rank(rank: int, shape: WeightShape) -> None:
    """Refuse a rank that the weight cannot have.

    Raises:
        AdapterError: Naming the largest that it can.
    """
    if rank > shape.max_rank:
        raise AdapterError(
            f"rank {rank} is larger than {shape.max_rank}, the full rank of "
            f"a weight {tuple(shape.stored)}; lower the rank, give this layer its "
            "own through rank_pattern, or leave it out of targets"
        )


def regularised(
    mode: Orthogonal, shape: WeightShape, up: Tensor, down: Tensor
) -> list[Tensor]:
    """The factors (dim, r) that a penalty is put on.

    Args:
        mode: Which; kernel factors never, since with k < r they cannot be orthogonal.
        shape: Of the weight.
        up: (out, r).
        down: (r, in) or (r, in, *kernel).
    """
    if mode == "none":
        return []
    if mode == "paper" and math.prod(shape.kernel) > 1:
        return [_whole(up)]
    return [_whole(up), _whole(down).flatten(1).mT]


def _whole(factor: Tensor) -> Tensor:
    """A factor that FSDP2 has sharded, gathered: it is small."""
    return factor.full_tensor() if isinstance(factor, DTensor) else factor


def orthonormal_columns(rows: int, cols: int) -> Tensor:
    """A random (rows, cols) matrix with orthonormal columns; Gaussian if cols > rows.

    More columns than rows cannot be orthonormal; their squared length is then 1 in
    expectation.
    """
    gaussian = torch.randn(rows, cols)
    if cols > rows:
        return gaussian / math.sqrt(rows)
    basis: Tensor = torch.linalg.qr(gaussian).Q
    return basis


def first_match(patterns: Mapping[str, N], name: str) -> N | None:
    """The value of the first pattern that a name matches."""
    return next(
        (v for pattern, v in patterns.items() if re.search(pattern, name)), None
    )
