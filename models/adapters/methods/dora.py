"""DoRA: magnitude and direction of each output's weight learnt apart."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.adapters.base import AdapterError, WeightShape, full_precision
from models.adapters.methods.lora import LoRA, LoRAAdapter

SMALLEST = 1e-12


@dataclass(frozen=True, kw_only=True)
class DoRA(LoRA):
    """W' = m * (W + s up down) / |W + s up down|, row by row.

    Liu et al., DoRA, 2024, equation 5, with the norm detached (their section 4.3). A
    row is everything that feeds one output. With dropout only the increment's input is
    dropped; PEFT drops part of the base's, too.
    """

    def build(self, shape: WeightShape, weight: Tensor) -> "DoRAAdapter":
        self.check_rank(shape)
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
        norm = torch.linalg.vector_norm(shape.to_matrix(weight).float(), dim=1)
        chosen = [
            part
            for name, part in zip("qkv", norm.tensor_split(3), strict=True)
            if name in shape.chunks
        ]
        start = norm if shape.chunks == "qkv" else torch.cat(chosen)
        self.magnitude = nn.Parameter(start.detach().clone())

    def gain(self, weight: Tensor) -> Tensor:
        """m / |W + s up down|, (out,), the norm detached; 1 outside the chunks.

        The norm comes from |W|^2 + 2 s W A^T . B + s^2 B (A A^T) . B row by row, which
        reads W but never forms W + s B A (adapters' cost: 2 out in r).
        """
        with torch.no_grad(), full_precision(weight):
            base = self.shape.to_matrix(weight).float()
            thin = self.bottleneck()
            a, b = thin.down.flatten(1).float(), thin.scale * thin.up.float()
            square = torch.linalg.vector_norm(base, dim=1).square()
            square += 2 * ((a @ base.mT).mT * b).sum(1)
            square += ((b @ (a @ a.mT)) * b).sum(1)
            norm = square.clamp(min=SMALLEST).sqrt()
        if self.shape.chunks == "qkv":
            gain: Tensor = self.magnitude / norm
            return gain
        inside = self.shape.all_rows(torch.ones_like(self.magnitude))
        whole = self.shape.all_rows(self.magnitude)
        return torch.where(inside > 0, whole / norm, 1.0)
