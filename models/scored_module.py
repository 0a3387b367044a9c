"""Validation and test of depth networks: predictions meet their truth, nine metrics."""

import warnings
from collections.abc import Mapping
from typing import Any, cast

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, distributed

from datamodules.batch import DepthBatch
from datamodules.errors import DataError
from datamodules.protocols import Protocol
from models.artefacts.depth_record import DepthRecord
from models.boundary import BoundaryF1, BoundaryScores
from models.depth_metrics import DepthMetrics
from models.evaluation import count_warning, met, rows_of, told_of_test
from models.metrics import METRICS
from models.networks.depth_network import with_flip
from models.networks.interface import Network
from models.optimisation import Optimisation
from models.scoring import Scored, Scoring
from models.soundness import broken, check_predictions
from models.task_module import Row, TaskModule, Told

Means = dict[str, Tensor]
"""Metric name to its mean over images."""


def place(stage: str, source: str = "") -> str:
    """Under which a stage's scores stand, or those of one of its sources."""
    return f"{stage}/{source}" if source else stage


class ScoredModule(TaskModule):
    """What scores predictions by the protocol of the data at hand.

    Subclasses predict (`forward`, `metres`) and keep the scores.
    """

    takes = "pictures"
    monitor = ("val/abs_rel", "min")
    rises = frozenset({"delta1", "delta2", "delta3", "routed"})
    scoring_kind = Scoring
    scoring: Scoring
    before_too = "before, median-scaled"
    record: DepthRecord
    network: Network

    predicts_with = ""
    """Options that `predict.py` needs beside the checkpoint, a blank behind each."""

    def __init__(
        self, network: Network, record: DepthRecord, optimisation: Optimisation
    ) -> None:
        super().__init__(network, record, optimisation)
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
        self._median: dict[str, DepthMetrics] = {}
        self.image_rows: dict[str, list[Row]] = {}
        """Scores of single test images by source, where they are asked for."""

    def metres(self, depth: Tensor, batch: DepthBatch) -> Tensor:
        """What the network says (B, 1, h, w) of a batch's images, in true metres."""
        return depth

    def on_test_epoch_start(self) -> None:
        self.image_rows = {}

    def validation_step(self, batch: DepthBatch, batch_idx: int) -> Tensor:
        return self._evaluate(batch, self.val_metrics, Scoring())

    def test_step(self, batch: DepthBatch, batch_idx: int) -> Tensor:
        depth = self._evaluate(batch, self.test_metrics, self.scoring)
        if self.scoring.boundary:
            self.test_boundary.update(depth, batch["depth"], batch["valid"])
        self._note_each(depth, batch)
        return depth

    def on_validation_epoch_end(self) -> None:
        self._log_means("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        self._log_means("test", self.test_metrics)
        self._gather_each()
        if self.scoring.boundary:
            self.boundary[""] = self.test_boundary.scores()

    def _note_each(self, depth: Tensor, batch: DepthBatch) -> None:
        """Keep a test batch's own scores, if those are asked for."""
        if self.scoring.per_image:
            source = self.source_of(batch)
            rows = self.image_rows.setdefault(source, [])
            rows += rows_of(depth, batch, self.protocol_of(source))

    def _gather_each(self) -> None:
        """Every process's rows, in the order of their images."""
        if self.scoring.per_image and self.trainer.world_size > 1:
            parts: list[Any] = [None] * self.trainer.world_size
            distributed.all_gather_object(parts, self.image_rows)
            self.image_rows = {}
            for part in parts:
                for source, rows in part.items():
                    self.image_rows.setdefault(source, []).extend(rows)
        for rows in self.image_rows.values():
            rows.sort(key=lambda row: str(row["image"]))

    def source_of(self, batch: DepthBatch) -> str:
        """Which of them a batch of validation or test is from."""
        return ""

    def protocol_of(self, source: str = "") -> Protocol:
        """The evaluation rules of the data at hand, or of one of its sources."""
        return cast(Scored, self.trainer.datamodule).protocol  # type: ignore[attr-defined]

    def row(self, stage: str, source: str = "") -> Row:
        found, where = self.trainer.callback_metrics, place(stage, source)
        values = {name: found.get(f"{where}/{name}") for name in METRICS}
        return {name: float(v) for name, v in values.items() if v is not None}

    def rows_before(self) -> dict[str, Row]:
        rows = {}
        for source, metrics in self._median.items():
            means = metrics.compute()
            rows[source] = {name: float(means[name]) for name in METRICS}
        self._median = {}
        return rows

    def told(self, rows: Mapping[str, Row], source: str) -> Told:
        protocol, images = self.protocol_of(source), self.images[place("val", source)]
        named = f"{source}: " if source else ""
        return Told(
            heading=f"{named}protocol {protocol.name}, {images} images",
            rows=rows,
            content={"protocol": protocol.name, "n_images": images},
            notes=count_warning(protocol, images),
        )

    def tested(self, source: str) -> Told:
        where = place("test", source)
        return told_of_test(
            source,
            self.protocol_of(source),
            self.scoring,
            self.row("test", source),
            (self.images[where], self.empty[where]),
            self.boundary.get(source),
            self.image_rows.get(source, ()),
        )

    def next_command(self, checkpoint: str) -> str:
        return (
            f"python predict.py PHOTOGRAPHS --model {checkpoint} "
            f"{self.predicts_with}--output predictions"
        )

    def _evaluate(
        self, batch: DepthBatch, metrics: DepthMetrics, scoring: Scoring
    ) -> Tensor:
        """Score one batch; returns the prediction (B, 1, H, W) at the truth's size."""
        self._note_skipped(batch)
        source = self.source_of(batch)
        protocol = self.protocol_of(source)
        image, truth = batch["image"], (batch["depth"], batch["valid"], protocol.silog)
        depth = with_flip(self, image) if scoring.flip_tta else self(image)
        depth = self.metres(depth, batch)
        self._broken = self._broken.to(depth.device) + broken(depth)
        if self.trainer.sanity_checking:
            if source not in self._median:
                self._median[source] = DepthMetrics().to(self.device)
            scaled = met(depth, batch, protocol, "median")
            self._median[source].update(scaled, *truth)
        depth = met(depth, batch, protocol, scoring.align)
        metrics.update(depth, *truth)
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
