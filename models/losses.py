"""Losses: pure functions of (depth, target, valid)."""

import torch
from torch import Tensor

LOG_EPS = 1e-7
ROOT_EPS = 1e-12
GRADIENT_SCALES = 4


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


def log_gradient(depth: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Multi-scale gradient matching in log depth: edges where the truth has them.

    Of r = ln depth - ln target, taken at every 2^k-th row and column for k = 0..3: the
    mean of |r_i - r_j| over the horizontal and vertical neighbours that are both valid,
    summed over k. As in Ranftl et al., Towards Robust Monocular Depth Estimation
    (MiDaS), 2020, equation 11, there of aligned disparity, and Li and Snavely,
    MegaDepth, 2018, equation 4, in log depth. For dense truth: sparse one has few
    neighbours. It does not depend on the prediction's scale. A batch without
    neighbours gives zero with zero gradients.

    Args:
        depth: (B, 1, H, W) prediction, metres, above 0.
        target: Truth of the same shape; anything where not valid.
        valid: Bool, which pixels count.
    """
    # Filled in before the logarithm: one of 0 would turn gradients into NaN.
    known = torch.where(valid, depth.float(), 1.0).clamp(min=LOG_EPS).log()
    residual = known - torch.where(valid, target.float(), 1.0).clamp(min=LOG_EPS).log()
    loss = residual.new_zeros(())
    for step in (2**k for k in range(GRADIENT_SCALES)):
        r, v = residual[..., ::step, ::step], valid[..., ::step, ::step]
        along = torch.cat([r.diff(dim=dim).abs().flatten() for dim in (-2, -1)])
        rows, cols = v[..., 1:, :] & v[..., :-1, :], v[..., 1:] & v[..., :-1]
        both = torch.cat([rows.flatten(), cols.flatten()])
        loss = loss + (along * both).sum() / both.sum().clamp(min=1)
    return loss
