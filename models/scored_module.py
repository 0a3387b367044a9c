"""Validation and test of depth networks: predictions meet their truth, nine metrics."""

import warnings
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from datamodules.batch import DepthBatch
from datamodules.errors import DataError
from datamodules.protocols import Protocol
from models.alignment import aligned
from models.boundary import BoundaryF1, BoundaryScores
from models.metrics import DepthMetrics
from models.networks.depth_network import with_flip
from models.resizing import resize_each
from models.scoring import Scored, Scoring
from models.soundness import broken, check_predictions

Means = dict[str, Tensor]
"""Metric name to its mean over images."""


def place(stage: str, source: str = "") -> str:
    """Under which a stage's scores stand, or those of one of its sources."""
    return f"{stage}/{source}" if source else stage


class ScoredModule(LightningModule):
    """What scores predictions by the protocol of the data at hand.

    Subclasses predict (`forward`, `metres`) and keep the scores.
    """

    predicts_with = ""
    """Options that `predict.py` needs beside the checkpoint, a blank behind each."""

    def __init__(self) -> None:
        super().__init__()
        self.scoring = Scoring()
        self.skipped: dict[str, None] = {}
        """What was said of frames that could not be read, in order, each once."""
        self.empty: dict[str, int] = {}
        """How many images of each stage had no valid pixel."""
        self.images: dict[str, int] = {}
        """How many images each stage's last score is the mean of."""
        self._broken = torch.zeros((), dtype=torch.long)
        self.val_metrics = DepthMetrics()
        self.test_metrics = DepthMetrics()
        self.test_boundary = BoundaryF1()
        self.boundary: dict[str, BoundaryScores] = {}
        """Of the edges of each source, where they are scored."""

    def metres(self, depth: Tensor, batch: DepthBatch) -> Tensor:
        """What the network says (B, 1, h, w) of a batch's images, in true metres."""
        return depth

    def validation_step(self, batch: DepthBatch, batch_idx: int) -> Tensor:
        return self._evaluate(batch, self.val_metrics, Scoring())

    def test_step(self, batch: DepthBatch, batch_idx: int) -> Tensor:
        depth = self._evaluate(batch, self.test_metrics, self.scoring)
        if self.scoring.boundary:
            self.test_boundary.update(depth, batch["depth"], batch["valid"])
        return depth

    def on_validation_epoch_end(self) -> None:
        self._log_means("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        self._log_means("test", self.test_metrics)
        if self.scoring.boundary:
            self.boundary[""] = self.test_boundary.scores()

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of what is scored apart; "" of the only one."""
        return ("",)

    def source_of(self, batch: DepthBatch) -> str:
        """Which of them a batch of validation or test is from."""
        return ""

    def protocol_of(self, source: str = "") -> Protocol:
        """The evaluation rules of the data at hand, or of one of its sources."""
        return cast(Scored, self.trainer.datamodule).protocol  # type: ignore[attr-defined]

    def _evaluate(
        self, batch: DepthBatch, metrics: DepthMetrics, scoring: Scoring
    ) -> Tensor:
        """Score one batch; returns the prediction (B, 1, H, W) at the truth's size."""
        self._note_skipped(batch)
        protocol = self.protocol_of(self.source_of(batch))
        image, target, valid = batch["image"], batch["depth"], batch["valid"]
        depth = with_flip(self, image) if scoring.flip_tta else self(image)
        depth = self.metres(depth, batch)
        self._broken = self._broken.to(depth.device) + broken(depth)
        depth = resize_each(
            depth, batch["size"], target.shape[-2:], protocol.align_corners
        )
        depth = aligned(depth, target, valid, scoring.align, protocol.max_depth)
        if protocol.clamp:
            low, high = protocol.min_depth, protocol.max_depth
            depth = depth.nan_to_num(low, posinf=high).clamp(low, high)
        metrics.update(depth, target, valid, protocol.silog)
        return depth

    def _furthest(self) -> float:
        """Metres of the furthest truth that counts in any source."""
        return max(self.protocol_of(source).max_depth for source in self.sources)

    def _note_skipped(self, batch: DepthBatch) -> None:
        self.skipped.update(dict.fromkeys(batch["skipped"]))

    def _report_skipped(self) -> None:
        """Say in each process which frames it could not read, and forget them."""
        if self.skipped:
            first = "; ".join(list(self.skipped)[:3])
            warnings.warn(
                f"{len(self.skipped)} frames could not be read and were skipped: "
                f"{first}",
                stacklevel=2,
            )
            self.skipped.clear()

    def _log_means(self, stage: str, metrics: DepthMetrics, source: str = "") -> Means:
        """Log what a stage's images, or a source's, came to: `val/delta1`."""
        means = metrics.compute()
        metrics.reset()
        where = place(stage, source)
        protocol = self.protocol_of(source)
        images = self.images[where] = int(means.pop("n_images"))
        empty = self.empty[where] = int(means.pop("n_empty"))
        bad, self._broken = self._broken, torch.zeros_like(self._broken)
        bad = self.trainer.strategy.reduce(bad, reduce_op="sum")
        check_predictions(int(bad), images + empty, where)
        if images == 0:
            raise DataError(
                f"none of the {empty} {where} images has a pixel that counts in "
                f"protocol {protocol.name}: all truth is unknown or outside "
                f"{protocol.min_depth:g}-{protocol.max_depth:g} m; is "
                "depth_scale (units per metre) or max_depth wrong?"
            )
        self._report_skipped()
        if empty:
            rank_zero_warn(
                f"{empty} {where} images have no valid pixel and were not averaged"
            )
        if stage == "val" and not self.trainer.sanity_checking:
            scores = {
                "protocol": protocol.name,
                "n_images": images,
                "metrics": {name: float(value) for name, value in means.items()},
            }
            self._keep_scores(scores, source)
        # The metric is in step already; sync_dist only keeps Lightning from warning.
        self.log_dict(
            {f"{where}/{name}": value for name, value in means.items()}, sync_dist=True
        )
        return means

    def _keep_scores(self, scores: dict[str, Any], source: str) -> None:
        self.scores = scores
