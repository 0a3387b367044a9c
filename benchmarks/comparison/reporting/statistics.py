"""Means with intervals, and paired differences with a test."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from app.compare import half_width


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds; `half` is half of its 95 % interval (Student's t)."""

    mean: float
    half: float
    """NaN for a single value."""
    p: float = math.nan
    """Of the hypothesis that the mean is 0 (two-sided t-test), for differences."""


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and interval of independent values."""
    x = np.asarray(values, float)
    return Estimate(float(x.mean()), half_width(x))


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """Mean of ours - theirs over pairs that share a seed, with a paired t-test."""
    d = np.subtract(ours, theirs)
    plain = estimate(d.tolist())
    if len(d) < 2 or not np.ptp(d):
        # Equal differences have no spread to test against.
        return plain
    return Estimate(plain.mean, plain.half, float(stats.ttest_1samp(d, 0).pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values of several tests, adjusted by Holm's step-down rule; NaN stays NaN."""
    order = sorted(
        (i for i, p in enumerate(p_values) if not math.isnan(p)),
        key=lambda i: p_values[i],
    )
    adjusted, highest = list(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted
