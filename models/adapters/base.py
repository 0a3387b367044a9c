"""What an adapter is: options, a small module beside a frozen weight, and its algebra.

Every low-rank method here is one formula, dW = s * up . core . down, on the weight's
*stored* shape, so `Bottleneck` is all that the compute core has to know.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn

Orthogonal = Literal["both", "paper", "offdiag", "none"]


class AdapterError(Exception):
    """An adapter that cannot be made, merged or loaded; the message says why."""


@dataclass(frozen=True)
class WeightShape:
    """The stored shape of a weight and the meaning of its axes."""

    stored: tuple[int, ...]
    """Linear (out, in); convolution (out, in / groups, *kernel)."""
    out_axis: int = 0
    in_axis: int = 1

    @property
    def out_size(self) -> int:
        return self.stored[self.out_axis]

    @property
    def in_size(self) -> int:
        """Inputs that one output sees: divided by the groups of a convolution."""
        return self.stored[self.in_axis]

    @property
    def kernel(self) -> tuple[int, ...]:
        """The remaining axes, in stored order; empty for a matrix."""
        axes = (self.out_axis, self.in_axis)
        return tuple(n for axis, n in enumerate(self.stored) if axis not in axes)

    @property
    def max_rank(self) -> int:
        """Rank of the weight as a matrix out x (in . kernel): more adds nothing."""
        return min(self.out_size, self.in_size * math.prod(self.kernel))

    def from_matrix(self, matrix: Tensor) -> Tensor:
        """Bring (out, in, *kernel), flattened or not, into the stored shape."""
        full = matrix.reshape(self.out_size, self.in_size, *self.kernel)
        return full.movedim((0, 1), (self.out_axis, self.in_axis))


class Bottleneck(NamedTuple):
    """dW = scale * up . down, the form that computes without ever forming dW."""

    down: Tensor
    """(r, in, *kernel)."""
    up: Tensor
    """(out, r)."""
    scale: float


class Adapter(nn.Module, ABC):
    """Trainable tensors beside one frozen weight."""

    def __init__(self, shape: WeightShape, scale: float) -> None:
        super().__init__()
        self.shape = shape
        self.scale = scale

    @abstractmethod
    def bottleneck(self) -> Bottleneck:
        """The increment as a product of two thin tensors."""

    @abstractmethod
    def orthogonal_factors(self, mode: Orthogonal) -> list[Tensor]:
        """Matrices (dim, r) whose columns the penalty `mode` keeps orthonormal."""

    def delta(self) -> Tensor:
        """The increment dW itself, in the stored shape of the weight."""
        down, up, scale = self.bottleneck()
        return self.shape.from_matrix(scale * (up @ down.flatten(1)))


def check_patterns(name: str, patterns: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the patterns as a tuple, or say which one is no regular expression."""
    if patterns is None:
        return None
    if isinstance(patterns, str):
        raise AdapterError(
            f"{name} {patterns!r} is one string; give a list of regular expressions"
        )
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise AdapterError(
                f"{name}: {pattern!r} is not a regular expression ({error})"
            ) from None
    return tuple(patterns)


@dataclass(frozen=True, kw_only=True)
class AdapterConfig(ABC):
    """Options that every method shares.

    Patterns are regular expressions, searched anywhere in a layer's dotted name.
    """

    targets: Sequence[str] | None = None
    """Layers to adapt; null takes the network's own `adapter_targets`."""
    train_fully: Sequence[str] | None = None
    """Layers trained in full beside them; null takes `fully_trained`, [] none."""

    def __post_init__(self) -> None:
        for name in ("targets", "train_fully"):
            patterns = check_patterns(name, getattr(self, name))
            object.__setattr__(self, name, patterns)

    def with_defaults(
        self, *, targets: tuple[str, ...], train_fully: tuple[str, ...]
    ) -> Self:
        """A copy in which options left at null take these values."""
        return replace(
            self,
            targets=targets if self.targets is None else self.targets,
            train_fully=train_fully if self.train_fully is None else self.train_fully,
        )

    @abstractmethod
    def build(self, shape: WeightShape) -> Adapter:
        """Make the adapter of one weight.

        Raises:
            AdapterError: If the options do not fit this weight.
        """

    @abstractmethod
    def count(self, shape: WeightShape) -> int:
        """How many trainable numbers `build` will make."""


@dataclass(frozen=True, kw_only=True)
class LowRankConfig(AdapterConfig):
    """Options of the methods whose increment has a rank."""

    rank: int = 8
    """Number of rank-1 terms, at least 1."""
    alpha: float | None = None
    """The increment is scaled by alpha / rank; null means alpha = rank."""
    orthogonal: Orthogonal = "none"
    """Which factors the penalty keeps orthonormal. `both`: out and in factors;
    `paper`: only the out factor of convolutions; `offdiag`: both, but only the angles
    between columns, not their lengths; `none`: no penalty."""
    orthogonal_weight: float = 0.1
    """Factor of the penalty in the loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            raise AdapterError(f"rank {self.rank} must be at least 1")
        if self.alpha is not None and not (
            math.isfinite(self.alpha) and self.alpha > 0
        ):
            raise AdapterError(f"alpha {self.alpha} must be a number above 0")
        if self.orthogonal not in get_args(Orthogonal):
            raise AdapterError(
                f"orthogonal {self.orthogonal!r} is not known; "
                f"use one of {', '.join(get_args(Orthogonal))}"
            )
        if not (math.isfinite(self.orthogonal_weight) and self.orthogonal_weight >= 0):
            raise AdapterError(
                f"orthogonal_weight {self.orthogonal_weight} must be 0 or more"
            )

    @property
    def scale(self) -> float:
        """S = alpha / rank (Hu et al., LoRA, 2021, section 4.1)."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def check_rank(self, shape: WeightShape) -> None:
        """Refuse a rank that the weight cannot have."""
        if self.rank > shape.max_rank:
            raise AdapterError(
                f"rank {self.rank} is larger than {shape.max_rank}, the full rank of "
                f"a weight {tuple(shape.stored)}; lower the rank, or leave this layer "
                "out of targets"
            )


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
