"""How a prediction meets its truth, beside what the protocol says."""

from dataclasses import dataclass
from typing import Protocol as Interface

from torch import Tensor
from torch.nn import functional as F

from datamodules.protocols import Protocol
from models.alignment import Align


@dataclass(frozen=True)
class Scoring:
    """How `test` scores beside what the protocol says."""

    align: Align = "none"
    """Fit each prediction to its truth first: `median`, `scale_shift`, or `disparity`,
    which relative networks need. Never to be compared with metric results."""
    flip_tta: bool = False
    """Average the prediction with that of the mirrored image, as ZoeDepth's and
    NeWCRFs' evaluation does."""

    @property
    def suffix(self) -> str:
        """What marks these results among others; empty for plain ones."""
        aligned = "" if self.align == "none" else f"_aligned_{self.align}"
        return aligned + ("_flip" if self.flip_tta else "")


class Scored(Interface):
    """What evaluation has to know of a data module."""

    protocol: Protocol


def resize_each(
    depth: Tensor,
    sizes: list[tuple[int, int]],
    shape: tuple[int, ...],
    align_corners: bool,
) -> Tensor:
    """Resize (B, 1, h, w) bilinearly to each image's own size, padded with ones.

    Args:
        depth: Metres.
        sizes: (rows, cols) of each image's truth.
        shape: (H, W) of the padded batch.
        align_corners: As in `torch.nn.functional.interpolate`.
    """

    def resized(maps: Tensor, size: tuple[int, ...]) -> Tensor:
        if maps.shape[-2:] == size:
            return maps
        return F.interpolate(maps, size, mode="bilinear", align_corners=align_corners)

    if all(size == tuple(shape) for size in sizes):
        return resized(depth, tuple(shape))
    whole = depth.new_ones((len(sizes), 1, *shape))
    for i, (rows, cols) in enumerate(sizes):
        whole[i : i + 1, :, :rows, :cols] = resized(depth[i : i + 1], (rows, cols))
    return whole
