"""Metres from a few known points: fit a prediction to depths measured at some pixels.

What is fitted is what the network's numbers leave open: the scale of depth, scale and
shift of depth, or scale and shift of disparity. In float64.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import DataError
from models.networks.presets import Unit

Fit = Literal["auto", "median", "scale_shift"]
"""`auto`: scale and shift where there are points enough, else `median`."""
Fitted = Literal["median", "scale_shift", "disparity"]
Values = NDArray[np.floating]

FEWEST: dict[Fitted, int] = {"median": 1, "scale_shift": 10, "disparity": 2}
"""Points that a fit takes. With fewer than ten, two numbers do worse than one."""
NEAR_M = 1e-3
"""What is fitted lies no nearer."""
SAME = 1e-6
"""Relative error of a fit that float32 predictions cannot tell from none."""
OUTLIER_SIGMAS, OUTLIER_LEAST = 3.0, 0.01
"""An outlier's |ln(fitted / known)| is above so many robust standard deviations, and
above one per cent."""
MAD_TO_SIGMA = 1.4826
"""Of a normal distribution."""
HUBER_SIGMAS = 1.35
"""Beyond it an error counts linearly: 95 % as efficient as least squares (Huber)."""


@dataclass(frozen=True)
class Calibration:
    """What makes metres of a prediction, and how well it does at the known points."""

    fit: Fitted
    scale: float
    """Metres for `median` and `scale_shift`, 1 / metres for `disparity`, per unit."""
    shift: float
    """In metres, or 1 / metres, likewise."""
    count: int
    """Known points."""
    residual: float
    """Median of |ln(fitted / known)| over them: about the relative error."""
    outliers: int

    def metres(self, prediction: Values, far_m: float) -> Values:
        """Depth of a prediction of any shape, from `NEAR_M` to `far_m`."""
        fitted = self.unbounded(prediction)
        if self.fit == "disparity":
            fitted = 1 / np.maximum(fitted, 1 / far_m)
        return fitted.clip(NEAR_M, far_m)

    def unbounded(self, prediction: Values) -> Values:
        """scale * prediction + shift, in the prediction's own precision."""
        kind = prediction.dtype.type
        fitted: Values = prediction * kind(self.scale) + kind(self.shift)
        return fitted


def calibrate(
    predicted: Values, known_m: Values, unit: Unit, fit: Fit, far_m: float
) -> Calibration:
    """Fit a network's numbers to known depths.

    `median`: times exp(median(ln known - ln predicted)), which half of the points
    cannot spoil. `scale_shift`: depth = scale * predicted + shift, by Huber's
    M-estimator with its own scale of the errors (scikit-learn). For disparity the
    latter, of 1 / depth. `auto` is `median` below ten points, and where the slope of
    more has no meaning.

    Args:
        predicted: (N,) at the points.
        known_m: (N,) metres, above 0.
        unit: What the network's numbers are.
        fit: Which fit; disparity has one alone.
        far_m: Metres; what is fitted lies no farther.

    Raises:
        DataError: If there are too few points, or they contradict the prediction.
    """
    p, t = predicted.astype(np.float64), known_m.astype(np.float64)
    wanted = wanted_fit(unit, fit, len(p))
    if len(p) < FEWEST[wanted]:
        raise DataError(f"{len(p)} known points are fewer than {FEWEST[wanted]}")
    if wanted == "disparity":
        scale, shift = _line(p, 1 / t)
    elif wanted == "scale_shift":
        scale, shift = _line(p, t)
        if fit == "auto" and not scale > 0:
            wanted = "median"
    if wanted == "median":
        scale, shift = _ratio(p, t), 0.0
    if not (0 < scale < np.inf and np.isfinite(shift)):
        raise DataError(
            f"the known points contradict the prediction ({wanted} over {len(p)} "
            f"points gives a scale of {scale:.3g}, which must be above 0); are "
            "x, y and depth those of this picture?"
        )
    found = Calibration(wanted, scale, shift, len(p), 0.0, 0)
    errors = np.abs(np.log(found.metres(p, far_m) / t))
    residual = float(np.median(errors))
    limit = max(OUTLIER_SIGMAS * MAD_TO_SIGMA * residual, OUTLIER_LEAST)
    outliers = int((errors > limit).sum())
    return Calibration(wanted, scale, shift, len(p), residual, outliers)


def wanted_fit(unit: Unit, fit: Fit, count: int) -> Fitted:
    """Which fit so many points of a network with this unit get.

    Raises:
        DataError: If there is no such fit of this unit.
    """
    if unit == "disparity":
        if fit != "auto":
            raise DataError(
                f"--points-fit {fit} is for depth, but this network predicts "
                "disparity, which has one fit alone; leave it out"
            )
        return "disparity"
    if fit != "auto":
        return fit
    return "median" if count < FEWEST["scale_shift"] else "scale_shift"


def _ratio(p: Values, t: Values) -> float:
    """exp of the median of ln t - ln p, over points with a prediction above 0."""
    above = p > 0
    if not above.any():
        return 0.0
    return float(np.exp(np.median(np.log(t[above] / p[above]))))


def _line(x: Values, y: Values) -> tuple[float, float]:
    """Scale and shift of a robust line; a scale of 0 where all x are the same."""
    middle, unit = np.median(x), np.median(y)
    spread = x.std()
    if not spread > SAME * np.abs(x).max():
        return 0.0, float(unit)
    # Of about 1, so that the solver's tolerances mean the same for any units.
    u, v = (x - middle) / spread, y / unit
    slope, level = np.polyfit(u, v, 1)
    # Points on one line need no robust fit, whose scale of errors would be 0.
    if np.abs(slope * u + level - v).max() > SAME * np.abs(v).max():
        from sklearn.linear_model import HuberRegressor

        huber = HuberRegressor(epsilon=HUBER_SIGMAS, alpha=0.0, max_iter=1000)
        huber.fit(u[:, None], v)
        slope, level = float(huber.coef_[0]), float(huber.intercept_)
    scale = slope * unit / spread
    return float(scale), float(level * unit - scale * middle)
