"""SVDiff: the singular values of the weight, shifted."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.adapters.base import (
    Adapter,
    AdapterConfig,
    AdapterError,
    WeightShape,
    full_precision,
)

BASIS_TOLERANCE = 1e-3
"""Of the fingerprint's largest entry: float32 decompositions differ by less between
machines unless singular values nearly coincide; a lower precision adds its own step."""


@dataclass(frozen=True, kw_only=True)
class SVDiff(AdapterConfig):
    """W' = U diag(relu(sigma + shift)) V^T (Han et al., SVDiff, 2023, equation 2).

    Few numbers to train and to store, but the basis U, V is as large as W, and the
    shift's gradient needs the dense gradient of W'. Computed as
    W + U diag(relu(sigma + shift) - sigma) V^T, so that shift 0 is W exactly.
    """

    @property
    def starts_from_weight(self) -> bool:
        return True

    def build(self, shape: WeightShape, weight: Tensor) -> "SVDiffAdapter":
        return SVDiffAdapter(shape, weight)

    def count(self, shape: WeightShape) -> int:
        """One number per singular value: min(out, in . kernel)."""
        return shape.max_rank


class SVDiffAdapter(Adapter):
    """`shift` (m,) trained, `basis` (m,) saved beside it, U, sigma and V recomputed.

    A shift means nothing without its basis, and degenerate singular values let another
    machine find another one (a weight with equal singular values changes by more than
    its own size). `basis` is a projection of every u_i v_i^T onto fixed directions: a
    state that was saved with another basis is refused.
    """

    left: Tensor
    sigma: Tensor
    right: Tensor
    basis: Tensor

    def __init__(self, shape: WeightShape, weight: Tensor) -> None:
        super().__init__(shape)
        left, sigma, right, basis = _decompose(shape, weight)
        self.shift = nn.Parameter(torch.zeros_like(sigma))
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("sigma", sigma, persistent=False)
        self.register_buffer("right", right, persistent=False)
        self.register_buffer("basis", basis)

    def rebase(self, weight: Tensor, *, loading: bool) -> None:
        if self.shift.any() and not loading:
            raise AdapterError(
                "SVDiff's shift was trained in the singular basis of another base "
                "weight than the one that is loaded; load the base first, then adapt"
            )
        parts = _decompose(self.shape, weight)
        names = ("left", "sigma", "right", "basis")
        for name, value in zip(names, parts, strict=True):
            self.get_buffer(name).copy_(value)

    def delta(self, weight: Tensor) -> Tensor:
        change = torch.relu(self.sigma + self.shift) - self.sigma
        # relu(sigma) - sigma is exactly 0: singular values are never negative.
        with full_precision(change):
            return self.shape.from_matrix((self.left * change) @ self.right)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        saved = state_dict.get(f"{prefix}basis")
        if saved is not None and saved.shape == self.basis.shape:
            here = self.basis
            difference = (saved.to(here) - here).abs().max()
            step = max(torch.finfo(t.dtype).eps for t in (saved, here))
            allowed = (BASIS_TOLERANCE + step) * here.abs().max()
            if not difference <= allowed:
                raise AdapterError(
                    f"{prefix}shift was trained in another singular basis than the "
                    f"weight has here: {self._cause()}"
                )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _cause(self) -> str:
        """Why a basis may differ: coinciding singular values, or another weight."""
        other = "its base weight is not the one that the shift was trained on"
        gaps = -self.sigma.diff()
        # A singular vector is exact to the rounding divided by the gap beside it.
        exact = torch.finfo(self.sigma.dtype).eps / BASIS_TOLERANCE
        if len(gaps) and (gaps.min() <= 10 * exact * self.sigma[0]).item():
            return (
                f"either {other}, or, since it has (nearly) equal singular values, "
                "this machine finds others; load the merged network instead"
            )
        return f"{other}; load that base first"


def _decompose(
    shape: WeightShape, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """U (out, m), sigma (m,), V^T (m, in . kernel) and the fingerprint (m,)."""
    matrix = shape.to_matrix(weight.detach())
    wide = torch.promote_types(weight.dtype, torch.float32)
    if not matrix.isfinite().all():
        raise AdapterError("a weight that is not finite has no singular values")
    left, sigma, right = torch.linalg.svd(matrix.to(wide), full_matrices=False)
    # The signs of u_i and v_i may flip together: the product of the two does not.
    ahead = torch.cos(torch.arange(len(left), device=left.device).to(wide))
    along = torch.sin(torch.arange(right.shape[1], device=left.device).to(wide))
    return left, sigma, right, (ahead @ left) * (right @ along)
