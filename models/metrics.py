"""The nine depth metrics of the field, of single images."""

import torch
from torch import Tensor

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
