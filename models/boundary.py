"""Boundary F1: whether predicted edges of depth lie where the truth's do."""

from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.errors import DataError
from models.depth_metrics import WideMetric
from models.metrics import WIDE

RATIOS = torch.linspace(1.05, 1.25, 10, dtype=torch.float64)
"""Of two neighbours' inverse depths, from which on there is an edge between them."""
WEIGHTS = RATIOS / RATIOS.sum()
DENSE = 0.75
"""Part of the known pixels whose neighbour is known, at least, in dense truth: 0.92 and
more in NYU's frames, 0.5 in KITTI's gathered scans."""


class BoundaryScores(NamedTuple):
    """What is reported."""

    f1: float
    """Mean over images, NaN if none had an edge."""
    n_images: int
    n_without_edges: int


def boundary_f1(depth: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Boundary F1 of each image; it does not depend on the prediction's scale.

    Bochkovskii et al., Depth Pro, 2024: a pixel has an edge of a direction (left,
    right, up, down) and a ratio where its inverse depth is more than that many times
    that neighbour's. Precision and recall are means over the four directions, 0 in one
    without edges; their harmonic mean, 0 where both are, is averaged over `RATIOS` with
    `WEIGHTS`. Only neighbours that are both valid count.

    Args:
        depth: (B, 1, H, W) prediction, metres, above 0 where valid.
        target: (B, 1, H, W) truth, metres, above 0 where valid.
        valid: (B, 1, H, W) bool.

    Returns:
        F1 (B,) `WIDE`, and whether the truth has an edge of the least ratio (B,): F1 of
        an image without one says nothing.
    """
    steps = _steps(depth, target, valid)
    scores = []
    for ratio in RATIOS.tolist():
        precision, recall = [], []
        for rise, true_rise in steps:
            found, true = rise > ratio, true_rise > ratio
            hits = (found & true).sum(1).to(WIDE)
            precision.append(hits / found.sum(1).clamp(min=1))
            recall.append(hits / true.sum(1).clamp(min=1))
        p, r = torch.stack(precision).mean(0), torch.stack(recall).mean(0)
        scores.append(2 * p * r / torch.where(p + r > 0, p + r, 1))
    least = RATIOS[0].item()
    edged = torch.stack([(true_rise > least).any(1) for _, true_rise in steps]).any(0)
    return WEIGHTS.to(edged.device, WIDE) @ torch.stack(scores), edged


def _steps(depth: Tensor, target: Tensor, valid: Tensor) -> list[tuple[Tensor, Tensor]]:
    """How many times a neighbour's inverse depth a pixel has, in four directions.

    Returns:
        Of the prediction and the truth, (B, pairs) `WIDE`, 1 where one is not valid.
    """
    # 1 against 1 is no edge.
    maps = [torch.where(valid, x, 1).to(WIDE) for x in (depth, target)]
    found = []
    for dim in (-2, -1):
        length = valid.shape[dim] - 1
        both = valid.narrow(dim, 0, length) & valid.narrow(dim, 1, length)
        # Inverse depths have the depths' ratio the other way round.
        rise, true_rise = (
            torch.where(both, x.narrow(dim, 1, length) / x.narrow(dim, 0, length), 1)
            for x in maps
        )
        pair = rise.flatten(1), true_rise.flatten(1)
        found += [pair, (1 / pair[0], 1 / pair[1])]
    return found


class BoundaryF1(WideMetric):
    """Mean over images of `boundary_f1`; those without an edge are counted apart."""

    full_state_update = False
    higher_is_better = True
    total: Tensor
    images: Tensor
    without_edges: Tensor
    known: Tensor
    neighbours: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=WIDE), dist_reduce_fx="sum")
        for name in ("images", "without_edges", "known", "neighbours"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, depth: Tensor, target: Tensor, valid: Tensor) -> None:
        """Add images; shapes and units as in `boundary_f1`.

        Raises:
            DataError: If the truth is sparse: an edge is missed wherever a neighbour
                is not known.
        """
        scores, edged = boundary_f1(depth, target, valid)
        self.total += torch.where(edged, scores, 0).sum()
        self.images += edged.sum()
        self.without_edges += (~edged).sum()
        self.known += valid.sum()
        self.neighbours += (valid[..., 1:] & valid[..., :-1]).sum()
        self.neighbours += (valid[..., 1:, :] & valid[..., :-1, :]).sum()
        part = int(self.neighbours) / max(2 * int(self.known), 1)
        if self.known > 0 and part < DENSE:
            raise DataError(
                f"--boundary true is for dense truth: only {100 * part:.0f} % of the "
                "known pixels' neighbours are known, too few to see edges; leave it out"
            )

    def compute(self) -> dict[str, Tensor]:
        """The mean, NaN if no image had an edge, and of how many images it is one."""
        mean = self.total / torch.where(self.images > 0, self.images, torch.nan)
        return {
            "f1": mean.float(),
            "n_images": self.images,
            "n_without_edges": self.without_edges,
        }

    def scores(self) -> BoundaryScores:
        """What is to be reported; then begin anew."""
        found = self.compute()
        self.reset()
        f1, images, without = found.values()
        return BoundaryScores(float(f1), int(images), int(without))
