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


@dataclass(frozen=True, kw_only=True)
class SVDiff(AdapterConfig):
    """W' = U diag(relu(sigma + shift)) V^T (Han et al., SVDiff, 2023, equation 2).

    Few numbers to train and to store, but the basis U, V is as large as W, and the
    shift's gradient needs the dense gradient of W'. Computed as
    W + U diag(relu(sigma + shift) - sigma) V^T, so that shift 0 is W exactly.
    """

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
        matrix = shape.to_matrix(weight.detach())
        wide = torch.promote_types(weight.dtype, torch.float32)
        left, sigma, right = torch.linalg.svd(matrix.to(wide), full_matrices=False)
        self.shift = nn.Parameter(torch.zeros_like(sigma))
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("sigma", sigma, persistent=False)
        self.register_buffer("right", right, persistent=False)
        # The signs of u_i and v_i may flip together: the product of the two does not.
        ahead = torch.cos(torch.arange(len(left), device=left.device).to(wide))
        along = torch.sin(torch.arange(right.shape[1], device=left.device).to(wide))
        self.register_buffer("basis", (ahead @ left) * (right @ along))

    def delta(self) -> Tensor:
        change = torch.relu(self.sigma + self.shift) - self.sigma
        # relu(sigma) - sigma is exactly 0: singular values are never negative.
        with full_precision(change):
            return self.shape.from_matrix((self.left * change) @ self.right)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        saved = state_dict.get(f"{prefix}basis")
        if saved is not None:
            here = self.basis
            difference = (saved.to(here) - here).abs().max()
            if difference > BASIS_TOLERANCE * here.abs().max():
                raise AdapterError(
                    f"{prefix}shift was trained in another singular basis than this "
                    "machine finds; its weight has (nearly) equal singular values: "
                    "load the merged network instead"
                )
        super()._load_from_state_dict(state_dict, prefix, *args)
