"""Metres of each picture's prediction, from the points that are known of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from app.prediction.batch import PhotographBatch
from app.prediction.known_points import KnownPoints, Points
from app.prediction.options import PointsPer
from app.prediction.predictor import at_size
from app.prediction.running import Runner
from datamodules.errors import DataError
from datamodules.extras import check_installed
from datamodules.files.depths.writing import PIXELS_MAX
from datamodules.files.pictures import Picture
from models.calibration import (
    FEWEST,
    NEAR_M,
    Calibration,
    Fit,
    calibrate,
    wanted_fit,
)
from models.networks.presets import Unit

BEYOND = 2.0
"""Times the farthest known point: so far calibrated depth goes."""
PNG_REACH_M = PIXELS_MAX / 256
Depth = NDArray[np.float32]


@dataclass(frozen=True)
class Calibrator:
    """Fits each picture, or all of them, to the known points."""

    points: KnownPoints
    per: PointsPer
    fit: Fit
    unit: Unit
    far_m: float
    """Depths end here."""
    shared: Calibration | None = None
    """Of the whole run, once it is known."""

    def check(self, pictures: Sequence[Picture]) -> None:
        """Refuse what cannot be fitted before anything is predicted.

        Raises:
            DataError: Naming pictures that have no points, or too few.
        """
        counts = {name: len(points) for name, points in self.points.by_name.items()}
        if self.per == "run":
            counts = {"the run": sum(counts.values())}
        elif without := [p.name for p in pictures if p.name not in counts]:
            raise DataError(
                f"{len(without)} of {len(pictures)} pictures have no known points "
                f"({', '.join(without[:3])}); add some, leave the pictures out, or "
                "give --points-per run: one fit for all"
            )
        fits = {name: wanted_fit(self.unit, self.fit, n) for name, n in counts.items()}
        if few := [name for name, fit in fits.items() if counts[name] < FEWEST[fit]]:
            named = ", ".join(f"{name}: {counts[name]}" for name in few[:3])
            needed = FEWEST[fits[few[0]]]
            raise DataError(
                f"{fits[few[0]]} takes at least {needed} known points, but there are "
                f"fewer ({named}); add some"
                + ("" if self.per == "run" else ", or give --points-per run")
            )
        if set(fits.values()) - {"median"}:
            what = "fitting scale and shift (not so --points-fit median, of depth)"
            check_installed(what, "points", "sklearn")

    def metres(self, name: str, depth: Depth) -> tuple[Depth, dict[str, Any]]:
        """A picture's prediction (H, W) in metres, and what to note of it.

        Raises:
            DataError: If its points contradict it.
        """
        found, note = self.shared, {"per": self.per}
        if found is None:
            points = self.points.by_name[name]
            found = self._fitted(at_points(depth, points), points[:, 2])
        metres = found.metres(depth, self.far_m).astype(np.float32)
        ended = np.count_nonzero((metres <= NEAR_M) | (metres >= self.far_m))
        return metres, note | asdict(found) | {"pixels_at_an_end": int(ended)}

    def with_shared(self, predicted: Depth, known_m: Depth) -> "Calibrator":
        """The same with one fit for all pictures, from all points together."""
        return replace(self, shared=self._fitted(predicted, known_m))

    def _fitted(self, predicted: Depth, known_m: Depth) -> Calibration:
        return calibrate(predicted, known_m, self.unit, self.fit, self.far_m)


class PointSampler:
    """Keeps what is predicted at the known points, and nothing else.

    Args:
        pictures: What the batches' indices mean.
        points: Of these.
    """

    def __init__(
        self, pictures: Sequence[Picture], points: Mapping[str, Points]
    ) -> None:
        self.pictures, self.points = pictures, points
        self._found: dict[str, Depth] = {}

    def add(self, outcome: Tensor, batch: PhotographBatch, seconds: float) -> None:
        """Look at a batch's predictions."""
        for i, index in enumerate(batch["index"]):
            if not batch["error"][i]:
                name = self.pictures[index].name
                depth = at_size(outcome[i], batch["size"][i])
                self._found[name] = at_points(depth, self.points[name])

    def gathered(self, runner: Runner) -> tuple[Depth, Depth]:
        """Predicted and known depths, of all processes' pictures in one order.

        Raises:
            DataError: If none of the pictures could be read, or none is finite.
        """
        shares = runner.gathered(self._found)
        whole = {name: values for share in shares for name, values in share.items()}
        names = [name for name in sorted(whole) if np.isfinite(whole[name]).all()]
        if not names:
            raise DataError("none of the pictures that have known points can be read")
        known = [self.points[name][:, 2] for name in names]
        return np.concatenate([whole[name] for name in names]), np.concatenate(known)


def far_m(farthest_m: float, max_depth: float | None) -> float:
    """Where calibrated depth ends: beyond the farthest point, within what PNGs hold.

    One wrong point shall not make a whole run's PNGs impossible.

    Args:
        farthest_m: Depth of the farthest known point.
        max_depth: Of a metric network, whose own reach remains.
    """
    beyond = min(BEYOND * farthest_m, PNG_REACH_M)
    return max(beyond, farthest_m, max_depth or 0.0)


def at_points(depth: Depth, points: Points) -> Depth:
    """What a map (H, W) says in the pixels of the points."""
    rows, cols = depth.shape
    x = np.rint(points[:, 0]).astype(int).clip(0, cols - 1)
    y = np.rint(points[:, 1]).astype(int).clip(0, rows - 1)
    found: Depth = depth[y, x]
    return found
