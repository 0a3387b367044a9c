"""Losses: pure functions of (depth, target, valid)."""

import torch
from torch import Tensor

LOG_EPS = 1e-7
ROOT_EPS = 1e-12


def silog(
    depth: Tensor, target: Tensor, valid: Tensor, variance_focus: float
) -> Tensor:
    """Scale-invariant logarithmic loss, sqrt(mean(e^2) - lambda mean(e)^2).

    e = ln depth - ln target over the valid pixels of the whole batch. Eigen et al.,
    Depth Map Prediction from a Single Image, 2014, equation 4; the root and the
    batch-wide mean as in BTS and Depth Anything V2 `metric_depth/util/loss.py`.
    Computed in float32. Finite where those are not: the root has an epsilon, since
    its gradient at a residual of exactly zero is infinite, and a batch without a
    valid pixel gives zero with zero gradients.

    Args:
        depth: (B, 1, H, W) prediction, metres, above 0.
        target: Truth of the same shape; anything where not valid.
        valid: Bool, which pixels count.
        variance_focus: lambda in 0..1; 0.5 in Depth Anything V2, 0.85 in BTS and
            ZoeDepth. 1 ignores the scale altogether.
    """
    # Selecting by multiplication would turn infinite logarithms into NaN.
    predicted = depth.float()[valid].clamp(min=LOG_EPS)
    if predicted.numel() == 0:
        return depth.float().sum() * 0.0
    error = predicted.log() - target.float()[valid].clamp(min=LOG_EPS).log()
    spread = error.square().mean() - variance_focus * error.mean().square()
    return torch.sqrt(spread.clamp(min=0) + ROOT_EPS)
