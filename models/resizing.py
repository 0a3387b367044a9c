"""Predictions at the sizes of their truths."""

from torch import Tensor
from torch.nn import functional as F


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
