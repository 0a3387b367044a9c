"""The nine depth metrics of the field, averaged over images."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from datamodules.protocols import KITTI_SILOG, Silog
from models.metrics import METRICS, WIDE, per_image


class WideMetric(Metric):
    """A metric whose states keep their dtype."""

    def _apply(
        self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ""
    ) -> nn.Module:
        """As torchmetrics has it, but `module.to(dtype)` does not narrow a sum."""
        return super()._apply(lambda state: fn(state).to(state.dtype), exclude_state)


class DepthMetrics(WideMetric):
    """Mean over images of each image's metrics, the field's convention.

    A mean over the pixels of all images gives other numbers wherever images have
    different amounts of truth. Images without a valid pixel are counted apart and
    not averaged.
    """

    full_state_update = False
    higher_is_better = None
    sums: Tensor
    images: Tensor
    empty: Tensor

    def __init__(self) -> None:
        super().__init__()
        zeros = torch.zeros(len(METRICS), dtype=WIDE)
        self.add_state("sums", zeros, dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("empty", torch.tensor(0), dist_reduce_fx="sum")

    def update(
        self,
        depth: Tensor,
        target: Tensor,
        valid: Tensor,
        silog: Silog = KITTI_SILOG,
    ) -> None:
        """Add images; shapes and units as in `per_image`."""
        scored = valid.flatten(1).any(1)
        rows = per_image(depth, target, valid, silog)
        self.sums += torch.where(scored[:, None], rows, 0.0).sum(0)
        self.images += scored.sum()
        self.empty += (~scored).sum()

    def compute(self) -> dict[str, Tensor]:
        """Metric name to its mean over images, NaN if there was none.

        Beside them `n_images`, how many were averaged, and `n_empty`, how many had no
        valid pixel, over all processes.
        """
        means = self.sums / torch.where(self.images > 0, self.images, torch.nan)
        named = dict(zip(METRICS, means.float(), strict=True))
        return named | {"n_images": self.images, "n_empty": self.empty}
