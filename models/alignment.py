"""Fit a prediction to the truth before it is scored: for what is not metric.

What remains of the error afterwards is not a matter of the fitted numbers. Aligned
scores are never to be compared with metric ones.
"""

from typing import Literal

import torch
from torch import Tensor

from models.metrics import WIDE

Align = Literal["none", "median", "scale_shift", "disparity"]


def aligned(
    prediction: Tensor, target: Tensor, valid: Tensor, how: Align, max_depth: float
) -> Tensor:
    """Each image's prediction, fitted to its own truth on the valid pixels.

    `median`: times median(target) / median(prediction). `scale_shift`: the least
    squares fit of scale * prediction + shift to the depth, or `median` where its scale
    is not above 0. `disparity`: the prediction is affine disparity, as of Depth
    Anything's relative networks; the least squares fit of scale * prediction + shift to
    1 / depth, inverted (the authors' recipe, Depth-Anything-V2 issue 157), disparities
    that would lie beyond `max_depth` set to it first. Images without a valid pixel pass
    unchanged.

    Args:
        prediction: (B, 1, H, W).
        target: (B, 1, H, W) truth, metres, above 0 where valid.
        valid: (B, 1, H, W) bool.
        how: Which fit.
        max_depth: Metres.

    Returns:
        (B, 1, H, W) `WIDE` metres, or the prediction itself for `none`.
    """
    if how == "none":
        return prediction
    inside = valid.flatten(1)
    p, g = prediction.flatten(1).to(WIDE), target.flatten(1).to(WIDE)
    if how == "disparity":
        inverse = torch.where(inside, 1 / torch.where(inside, g, 1), 0)
        scale, shift = _least_squares(p, inverse, inside)
        fitted = 1 / (scale * p + shift).clamp(min=1 / max_depth)
    else:
        scale, shift = _median_ratio(p, g, inside), torch.zeros_like(p[:, :1])
        if how == "scale_shift":
            fit, offset = _least_squares(p, g, inside)
            scale, shift = (
                torch.where(fit > 0, new, old)
                for new, old in ((fit, scale), (offset, shift))
            )
        fitted = scale * p + shift
    fitted = torch.where(inside.any(1, keepdim=True), fitted, p)
    return fitted.view_as(prediction)


def _median_ratio(p: Tensor, g: Tensor, inside: Tensor) -> Tensor:
    """median(g) / median(p) of each row's inside, (B, 1); 1 where there is none.

    The median of an even number is the mean of the two in the middle, as in NumPy.
    """

    def median(values: Tensor) -> Tensor:
        known = torch.where(inside, values, torch.nan)
        return known.nanquantile(0.5, dim=1, keepdim=True)

    return (median(g) / median(p)).nan_to_num(1.0, posinf=1.0, neginf=1.0)


def _least_squares(p: Tensor, g: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift (B, 1) of the best scale * p + shift to g, row by row."""
    count = inside.sum(1, keepdim=True).clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return torch.where(inside, values, 0).sum(1, keepdim=True) / count

    p_mean, g_mean = mean(p), mean(g)
    variance = mean((p - p_mean).square())
    covariance = mean((p - p_mean) * (g - g_mean))
    scale = torch.where(variance > 0, covariance / variance, 0)
    return scale, g_mean - scale * p_mean
