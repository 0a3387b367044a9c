"""Training of any depth network: one step, one loss, checkpoints."""

from dataclasses import replace
from typing import Any, cast

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from datamodules.batch import DepthBatch, ImageInput
from datamodules.errors import DataError
from models.artefacts.depth_record import DepthRecord
from models.artefacts.record import Record
from models.camera import SeenCameras, input_focal_px, to_metres
from models.errors import OptionError
from models.losses import log_gradient, silog
from models.metrics import per_image
from models.networks.interface import Network
from models.optimisation import Optimisation
from models.resuming import check_shrink, image_shrink
from models.scored_module import ScoredModule
from models.task_module import AVERAGED as AVERAGED


class DepthModule(ScoredModule):
    """A depth network in training; subclasses say which network.

    Checkpoints hold what was trained and how the base is identified, never the frozen
    base itself.

    Args:
        network: With its adapters in place.
        record: How to rebuild it.
        optimisation: Rates, schedule and loss.
    """

    def __init__(
        self,
        network: Network,
        record: DepthRecord,
        optimisation: Optimisation,
    ) -> None:
        super().__init__(network, record, optimisation)
        self.optimisation: Optimisation = optimisation
        self._trained_pixels: Tensor | None = None
        """Of this epoch's truth; None before its first batch."""
        self._cameras = SeenCameras(record.focals_px)

    @property
    def image_input(self) -> ImageInput:
        """What the network reads; the data module asks for it."""
        return ImageInput.of(self.network)

    def forward(self, image: Tensor) -> Tensor:
        """Depth (B, 1, h, w) in metres of normalised images (B, 3, h, w)."""
        depth: Tensor = self.network(image)
        return depth

    def metres(self, depth: Tensor, batch: DepthBatch) -> Tensor:
        """What the network says (B, 1, h, w) of a batch's images, in true metres.

        Raises:
            DataError: If it depends on the camera, and a frame's is not known.
        """
        canonical_px = self.network.canonical_focal_px
        if canonical_px is None:
            return depth
        focal_px = input_focal_px(batch)
        if self.training:
            self._note_cameras(batch, focal_px, focal_px / canonical_px)
        return to_metres(depth, focal_px, canonical_px)

    def training_step(self, batch: DepthBatch, batch_idx: int) -> Tensor:
        self._note_skipped(batch)
        depth = self.metres(self(batch["image"]), batch)
        target, valid = batch["depth"], batch["valid"]
        self.count_pixels(valid)
        focus = self.optimisation.variance_focus
        loss = silog(depth, target, valid, focus)
        with torch.no_grad():
            scored = valid.flatten(1).any(1)
            delta1 = per_image(depth, target, valid)[scored, 0].mean()
        size = len(target)
        self.log("train/silog", loss.detach(), batch_size=size)
        if weight := self.optimisation.gradient_weight:
            gradient = log_gradient(depth, target, valid)
            self.log("train/log_gradient", gradient.detach(), batch_size=size)
            loss = loss + weight * gradient
        if (penalty := self.penalty(size)) is not None:
            loss = loss + penalty
        self.log("loss", loss.detach(), prog_bar=True, batch_size=size)
        if scored.any():
            self.log("delta1", delta1.float(), prog_bar=True, batch_size=size)
        return loss

    def on_test_start(self) -> None:
        unit, align = self.network.unit, self.scoring.align
        if unit == "disparity" and align != "disparity":
            raise OptionError(
                "the network is relative and predicts affine disparity; give "
                "--align disparity"
            )
        if unit == "depth" and align not in ("median", "scale_shift"):
            raise OptionError(
                "the network is relative and predicts depth up to its scale; give "
                "--align median or scale_shift"
            )
        if unit == "metres" and align == "disparity":
            raise OptionError(
                "--align disparity is for relative networks, but this one predicts "
                "metres; use none, median or scale_shift"
            )

    def on_fit_start(self) -> None:
        if self.record.network.kind == "relative":
            raise OptionError(
                "a relative network can be tested, not trained here: set model.kind to "
                "metric"
            )

    def on_train_epoch_start(self) -> None:
        self._trained_pixels = None

    def count_pixels(self, valid: Tensor) -> None:
        """Note how much of a batch can be learned from."""
        seen, more = self._trained_pixels, valid.sum()
        self._trained_pixels = more if seen is None else seen + more

    def on_train_epoch_end(self) -> None:
        # None where a run goes on at an epoch's end: all its batches were before that.
        found = self._trained_pixels
        reduce = self.trainer.strategy.reduce
        if found is not None and int(reduce(found, reduce_op="sum")) == 0:
            raise DataError(
                "no training frame had a pixel to learn from: all truth is unknown or "
                f"beyond {self._furthest():g} m; is depth_scale (units per "
                "metre) or max_depth wrong?"
            )
        super().on_train_epoch_end()
        if self.network.canonical_focal_px is not None:
            self._report_cameras(self.network.canonical_focal_px)
        self._report_skipped()

    def description(self) -> dict[str, Any]:
        """What checkpoints say of what they hold, in plain types."""
        return replace(
            self.record,
            scores=self.scores,
            focals_px=self._cameras.focals_px(),
            image_shrink=image_shrink(self.trainer),
        ).to_dict()

    def record_of(self, source: str = "") -> DepthRecord:
        """What is said of the network, or of a source's adapter."""
        return self.record

    def note_record(self, found: Record[Any]) -> None:
        super().note_record(found)
        assert isinstance(found, DepthRecord)
        self._cameras = SeenCameras(found.focals_px)
        check_shrink(found, image_shrink(self.trainer))

    def _report_cameras(self, canonical_px: float) -> None:
        """Gather the focal lengths seen; say so where truth was out of reach."""
        ranges = self.all_gather(self._cameras.own.to(self.device))
        self._cameras.gathered(cast(Tensor, ranges))
        if line := self._cameras.out_of_reach(canonical_px, self._furthest()):
            rank_zero_warn(line)

    def _note_cameras(self, batch: DepthBatch, focal_px: Tensor, zoom: Tensor) -> None:
        ends_at = self.record.network.max_depth if self.network.saturates else None
        reach = zoom * (ends_at or float("inf"))
        self._cameras.note(focal_px, batch["depth"], batch["valid"], reach)
