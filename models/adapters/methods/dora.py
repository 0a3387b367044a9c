"""DoRA: magnitude and direction of each output's weight learnt apart."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.adapters.base import AdapterError, WeightShape, full_precision
from models.adapters.methods.lora import LoRA, LoRAAdapter
from models.adapters.methods.low_rank import check_rank


@dataclass(frozen=True, kw_only=True)
class DoRA(LoRA):
    """W' = m * (W + s up down) / |W + s up down|, row by row.

    Liu et al., DoRA, 2024, equation 5, with the norm detached (their section 4.3). A
    row is everything that feeds one output. With dropout only the increment's input is
    dropped; PEFT drops part of the base's, too.
    """

    @property
    def starts_from_weight(self) -> bool:
        return True

    def build(self, shape: WeightShape, weight: Tensor) -> "DoRAAdapter":
        check_rank(self.rank, shape)
        if shape.groups > 1 and shape.out_axis == 1:
            raise AdapterError(
                "DoRA's norm per output is not defined on the stored shape of a "
                "grouped transposed convolution; use another method, or leave it out"
            )
        return DoRAAdapter(shape, self.rank, self.scale, weight)

    def count(self, shape: WeightShape) -> int:
        """LoRA's, and one magnitude per adapted output."""
        return super().count(shape) + shape.out_size


class DoRAAdapter(LoRAAdapter):
    """LoRA's factors and `magnitude` (out,), which starts as the rows' norms."""

    def __init__(
        self, shape: WeightShape, rank: int, scale: float, weight: Tensor
    ) -> None:
        super().__init__(shape, rank, scale)
        self.magnitude = nn.Parameter(self._start(weight))

    def rebase(self, weight: Tensor, *, loading: bool) -> None:
        # A direction that is trained already keeps the magnitude trained with it.
        if not loading and not self.up.any():
            with torch.no_grad():
                self.magnitude.copy_(self._start(weight))

    def gain(self, weight: Tensor) -> Tensor:
        """m / |W + s up down|, (out,), the norm detached; 1 outside the chunks.

        The norm comes from |W|^2 + 2 s W A^T . B + s^2 B (A A^T) . B row by row, which
        reads W but never forms W + s B A (adapters' cost: 2 out in r). While B is 0 it
        is the root of a square, |W| to the bit, and the gain exactly 1.
        """
        with torch.no_grad(), full_precision(weight):
            base = self._rows(weight)
            thin = self.bottleneck()
            a, b = thin.down.flatten(1).to(base), thin.scale * thin.up.to(base)
            parts = torch.linalg.vector_norm(base, dim=1).square()
            cross = 2 * ((a @ base.mT).mT * b).sum(1)
            parts += ((b @ (a @ a.mT)) * b).sum(1)
            # Where the parts cancel, rounding decides: the sum is that exact, no more.
            floor = torch.finfo(base.dtype).eps * parts
            norm = torch.maximum(parts + cross, floor).sqrt()
            # A row of zeros stays one, whatever it is multiplied with.
            norm = torch.where(norm > 0, norm, 1)
        if self.shape.chunks == "qkv":
            gain: Tensor = self.magnitude / norm
            return gain
        inside = self.shape.all_rows(torch.ones_like(self.magnitude))
        whole = self.shape.all_rows(self.magnitude)
        return torch.where(inside > 0, whole / norm, 1.0)

    def _rows(self, weight: Tensor) -> Tensor:
        """The weight as a matrix (out, in . kernel), float32 at least."""
        wide = torch.promote_types(weight.dtype, torch.float32)
        return self.shape.to_matrix(weight.detach()).to(wide)

    def _start(self, weight: Tensor) -> Tensor:
        """Norms of the rows that have an increment."""
        norm = torch.linalg.vector_norm(self._rows(weight), dim=1)
        if self.shape.chunks == "qkv":
            whole: Tensor = norm
            return whole
        parts = zip("qkv", norm.tensor_split(3), strict=True)
        return torch.cat([part for name, part in parts if name in self.shape.chunks])
