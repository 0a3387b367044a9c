"""What an adapter is: options, a small module beside a frozen weight, and its algebra.

Every low-rank method here is one formula, dW = s * up . core . down, on the weight's
*stored* shape, so `Bottleneck` is all that the compute core has to know.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from datamodules.errors import UserError

Orthogonal = Literal["both", "paper", "offdiag", "none"]
Chunks = Literal["qkv", "qk", "qv", "kv", "q", "k", "v"]


class AdapterError(UserError):
    """An adapter that cannot be made, merged or loaded; the message says why."""


@dataclass(frozen=True)
class WeightShape:
    """The stored shape of a weight and the meaning of its axes."""

    stored: tuple[int, ...]
    """Linear (out, in); convolution (out, in / groups, *kernel); transposed one
    (in, out / groups, *kernel); embedding (entries, dim)."""
    out_axis: int = 0
    in_axis: int = 1
    groups: int = 1
    chunks: Chunks = "qkv"
    """Which thirds of a fused query-key-value projection have an increment."""
    kept_row: int | None = None
    """Entry of axis 0 that has no increment: an embedding's `padding_idx`."""

    @property
    def out_full(self) -> int:
        """Size of the output axis as it is stored."""
        return self.stored[self.out_axis]

    @property
    def out_size(self) -> int:
        """Outputs that have an increment: all, or those of the chosen chunks."""
        return self.out_full * len(self.chunks) // 3

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
        """Rank of the increment as a matrix out x (in . kernel): more adds nothing."""
        return min(self.out_size, self.in_size * math.prod(self.kernel))

    def from_matrix(self, matrix: Tensor) -> Tensor:
        """Bring (out, in, *kernel), flattened or not, into the stored shape."""
        full = matrix.reshape(self.out_full, self.in_size, *self.kernel)
        return full.movedim((0, 1), (self.out_axis, self.in_axis))

    def to_matrix(self, weight: Tensor) -> Tensor:
        """The inverse of `from_matrix`: (out, in . kernel)."""
        return weight.movedim((self.out_axis, self.in_axis), (0, 1)).flatten(1)

    def all_rows(self, chosen: Tensor, fill: float = 0.0) -> Tensor:
        """Rows (out, ...) from those of the chosen chunks; the others are `fill`."""
        if self.chunks == "qkv":
            return chosen
        pieces = iter(chosen.chunk(len(self.chunks)))
        third = (self.out_full // 3, *chosen.shape[1:])
        return torch.cat(
            [
                next(pieces) if name in self.chunks else chosen.new_full(third, fill)
                for name in "qkv"
            ]
        )


class Bottleneck(NamedTuple):
    """dW = scale * up . core . down, the form that computes without ever forming dW."""

    down: Tensor
    """(r, in, *kernel), or (r2, in) before a core."""
    up: Tensor
    """(out, r)."""
    scale: float
    core: Tensor | None = None
    """What stands between them in a convolution, if the kernel is not in `down`: a
    small kernel (r, r2 / groups, *kernel), diagonal where groups = r2 = r."""

    def dense_down(self) -> Tensor:
        """core . down, (r, in, *kernel)."""
        return self.down if self.core is None else core_down(self.core, self.down)


class Multiplied(NamedTuple):
    """W' = out o W o in: outputs and inputs scaled, the product the base's own."""

    out: Tensor
    """(out,) as the weight stores them: of one group, if transposed."""
    into: Tensor
    """(in,), of one group unless transposed."""


def core_down(core: Tensor, down: Tensor) -> Tensor:
    """(r, in, *kernel) of a core (r, r2 or 1, *kernel) and (r2, in)."""
    if core.shape[1] == len(down):
        dense: Tensor = torch.tensordot(core, down, dims=([1], [0]))
        return dense.movedim(-1, 1)
    return core * down.view(*down.shape, *[1] * (core.ndim - 2))


class Adapter(nn.Module):
    """Trainable tensors beside one frozen weight."""

    def __init__(self, shape: WeightShape) -> None:
        super().__init__()
        self.shape = shape
        self.enabled = True
        """False: the layer computes as its base (`disabled`)."""
        self.reached = False
        """Whether a forward has come by yet (`unreached`)."""

    def acts(self) -> bool:
        """Whether the increment counts; asked wherever the weight is used."""
        # Not a compiled graph's business: it may not have side effects.
        if not torch.compiler.is_compiling():
            self.reached = True
        return self.enabled

    def bottleneck(self) -> Bottleneck | None:
        """The increment as a product of two thin tensors; None if it is not thin."""
        return None

    def multiplied(self) -> Multiplied | None:
        """The adapted weight as the base's times one factor an output and an input."""
        return None

    def delta(self, weight: Tensor) -> Tensor:
        """The increment dW of a base weight, in its stored shape."""
        thin = self.bottleneck()
        assert thin is not None, "a method without a bottleneck defines delta"
        with full_precision(thin.up):
            matrix = thin.scale * (thin.up @ thin.dense_down().flatten(1))
        return self.shape.from_matrix(matrix)

    def gain(self, weight: Tensor) -> Tensor | None:
        """Factor (out,) on each output of the adapted weight; None for 1."""
        return None

    def weight(self, weight: Tensor) -> Tensor:
        """The adapted weight, in the stored shape: what merging writes."""
        wide = torch.promote_types(weight.dtype, torch.float32)
        adapted = weight.to(wide) + self.delta(weight).to(wide)
        gain = self.gain(weight)
        if gain is not None:
            axes = [1] * weight.ndim
            axes[self.shape.out_axis] = -1
            adapted = adapted * gain.to(wide).view(axes)
        if self.shape.kept_row is None:
            return adapted
        rows = torch.arange(len(weight), device=weight.device)
        kept = (rows == self.shape.kept_row).view(-1, *[1] * (weight.ndim - 1))
        return torch.where(kept, weight.to(wide), adapted)

    def rebase(self, weight: Tensor, *, loading: bool) -> None:
        """The base weight was replaced by another one; begin again if that matters.

        Args:
            weight: The new one.
            loading: Whether the adapter's own tensors are about to be loaded, too.
        """

    def orthogonal_factors(self, mode: Orthogonal) -> list[Tensor]:
        """Matrices (dim, r) whose columns the penalty `mode` keeps orthonormal."""
        return []


def full_precision(tensor: Tensor) -> torch.autocast:
    """A block without autocast: adapters' own arithmetic is small and wants float32."""
    return torch.autocast(tensor.device.type, enabled=False)


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
        except (re.error, TypeError) as error:
            raise AdapterError(
                f"{name}: {pattern!r} is not a regular expression ({error})"
            ) from None
    return tuple(patterns)


def whole(name: str, value: object) -> int:
    """An option that counts something, 1 at least, as Python's own number.

    Raises:
        AdapterError: If it is something else, as in files that people have edited.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise AdapterError(f"{name} {value!r} must be at least 1, a whole number")
    return int(value)


def number(name: str, value: object, fits: Callable[[float], bool], words: str) -> None:
    """Refuse an option that is no number or does not fit.

    Raises:
        AdapterError: With the words that say what it must be.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not fits(float(value)):
        raise AdapterError(f"{name} {value!r} must be {words}")


@dataclass(frozen=True, kw_only=True)
class AdapterConfig(ABC):
    """Options that every method shares.

    Patterns are regular expressions, searched anywhere in a layer's dotted name.
    """

    targets: Sequence[str] | None = None
    """Layers to adapt; null takes the network's own `adapter_targets`."""
    train_fully: Sequence[str] | None = None
    """Layers trained in full beside them; null takes `fully_trained`, [] none."""
    parameters: Sequence[str] = ()
    """Bare parameters to adapt, by their own dotted names, such as an `in_proj_weight`
    that no layer of its own holds."""

    def __post_init__(self) -> None:
        for name in ("targets", "train_fully", "parameters"):
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

    def for_layer(self, name: str) -> Self:
        """The options that hold for one layer."""
        return self

    def patterns(self) -> tuple[str, ...]:
        """Patterns of per-layer options, each of which must match a target."""
        return ()

    @property
    def starts_from_weight(self) -> bool:
        """Whether the base's values decide the start, so that zeros have none."""
        return False

    @property
    def dropout_p(self) -> float:
        """Probability of dropping an input of the increment in training."""
        return 0.0

    def chunks_of(self, name: str) -> Chunks:
        """Which thirds of a layer's outputs are adapted."""
        return "qkv"

    @abstractmethod
    def build(self, shape: WeightShape, weight: Tensor) -> Adapter:
        """Make the adapter of one weight.

        Args:
            shape: What the axes of the weight mean.
            weight: The frozen base weight, read by methods that start from it.

        Raises:
            AdapterError: If the options do not fit this weight.
        """

    @abstractmethod
    def count(self, shape: WeightShape) -> int:
        """How many trainable numbers `build` will make."""
