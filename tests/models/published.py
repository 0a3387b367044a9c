"""The published formulas of the metrics, in NumPy."""

import numpy as np


def by_hand(p, g) -> dict[str, float]:
    """One image, from the published formulas, in NumPy."""
    ratio, e = np.maximum(p / g, g / p), np.log(p) - np.log(g)
    return {
        "delta1": (ratio < 1.25).mean(),
        "delta2": (ratio < 1.25**2).mean(),
        "delta3": (ratio < 1.25**3).mean(),
        "abs_rel": (np.abs(g - p) / g).mean(),
        "sq_rel": ((g - p) ** 2 / g).mean(),
        "rmse": np.sqrt(((g - p) ** 2).mean()),
        "rmse_log": np.sqrt((e**2).mean()),
        "log10": np.abs(np.log10(p) - np.log10(g)).mean(),
        "silog": 100 * np.sqrt((e**2).mean() - e.mean() ** 2),
    }
