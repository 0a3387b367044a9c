"""The nine depth metrics of the field, averaged over images."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from datamodules.protocols import KITTI_SILOG, Silog

WIDE = torch.float32 if torch.backends.mps.is_available() else torch.float64
"""What is summed in: Apple's GPUs have no float64."""
METRICS = (
    "delta1",
    "delta2",
    "delta3",
    "abs_rel",
    "sq_rel",
    "rmse",
    "rmse_log",
    "log10",
    "silog",
)


def per_image(
    depth: Tensor, target: Tensor, valid: Tensor, silog: Silog = KITTI_SILOG
) -> Tensor:
    """Every metric of every image, in one pass.

    Formulas as coded in ZoeDepth `utils/misc.py: compute_errors` and BTS
    `bts_eval.py`. Rows of images without a valid pixel are meaningless; callers leave
    them out.

    Args:
        depth: (B, 1, H, W) prediction, metres, above 0 where valid.
        target: (B, 1, H, W) truth, metres, above 0 where valid.
        valid: (B, 1, H, W) bool.
        silog: Its convention; the KITTI benchmark's unless said otherwise.

    Returns:
        (B, 9) `WIDE` in the order of `METRICS`.
    """
    inside = valid.flatten(1)
    count = inside.sum(1).clamp(min=1)
    # 1 against 1 has no error, so what is not valid adds nothing to any sum.
    p = torch.where(inside, depth.flatten(1).to(WIDE), 1.0)
    g = torch.where(inside, target.flatten(1).to(WIDE), 1.0)

    def mean(values: Tensor) -> Tensor:
        return torch.where(inside, values, 0.0).sum(1) / count

    ratio = torch.maximum(p / g, g / p)
    error, log_error = p - g, p.log() - g.log()
    log_mse = mean(log_error.square())
    silog_square = log_mse - silog.focus * mean(log_error).square()
    return torch.stack(
        (
            *(mean((ratio < 1.25**k).to(WIDE)) for k in (1, 2, 3)),
            mean(error.abs() / g),
            mean(error.square() / g),
            mean(error.square()).sqrt(),
            log_mse.sqrt(),
            mean((p.log10() - g.log10()).abs()),
            silog.factor * silog_square.clamp(min=0).sqrt(),
        ),
        dim=1,
    )


class DepthMetrics(Metric):
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

    def _apply(
        self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ""
    ) -> nn.Module:
        """As torchmetrics has it, but `module.to(dtype)` does not narrow the sums."""
        return super()._apply(lambda state: fn(state).to(state.dtype), exclude_state)

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
