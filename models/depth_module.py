"""Training and evaluation of any depth network: one step, one loss, nine metrics."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from datamodules.batch import DepthBatch, ImageInput
from datamodules.errors import DataError
from datamodules.protocols import Protocol
from models.adapters import is_never_trained, orthogonality
from models.adapters.state import differences
from models.alignment import aligned
from models.artefacts.checkpoint import network_tensors
from models.artefacts.depth_record import DepthRecord
from models.artefacts.files import KEY
from models.boundary import BoundaryF1, BoundaryScores
from models.camera import SeenCameras, input_focal_px, to_metres
from models.errors import OptionError
from models.losses import log_gradient, silog
from models.metrics import DepthMetrics, per_image
from models.networks.depth_network import with_flip
from models.networks.interface import Network
from models.optimisation import OneCycle, Optimisation
from models.resizing import resize_each
from models.resuming import (
    check_resumable,
    check_shrink,
    image_shrink,
    record_of,
    steps_in_all,
)
from models.scoring import Scored, Scoring
from models.soundness import (
    broken,
    check_precision,
    check_predictions,
    check_weights,
    steps_of,
)

AVERAGED = "current_model_state"
"""Where Lightning's weight averaging puts the weights that are not averaged; it wants
whole state dicts back."""
STATES = {"state_dict", AVERAGED}


class DepthModule(LightningModule):
    """A depth network in training; subclasses say which network.

    Checkpoints hold what was trained and how the base is identified, never the frozen
    base itself.

    Args:
        network: With its adapters in place.
        record: How to rebuild it.
        optimisation: Rates, schedule and loss.
    """

    def __init__(
        self, network: Network, record: DepthRecord, optimisation: Optimisation
    ) -> None:
        super().__init__()
        # Checkpoints lack the frozen base; `on_load_checkpoint` checks what is there.
        self.strict_loading = False
        self.network = network
        self.record = record
        self.optimisation = optimisation
        self.scoring = Scoring()
        self.skipped: dict[str, None] = {}
        """What was said of frames that could not be read, in order, each once."""
        self.empty: dict[str, int] = {}
        """How many images of each stage had no valid pixel."""
        self._trained_pixels = torch.zeros((), dtype=torch.long)
        self._broken = torch.zeros((), dtype=torch.long)
        self.images: dict[str, int] = {}
        """How many images each stage's last score is the mean of."""
        self._cameras = SeenCameras(record.focals_px)
        self.scores = record.scores
        self.val_metrics = DepthMetrics()
        self.test_metrics = DepthMetrics()
        self.test_boundary = BoundaryF1()
        self.boundary: BoundaryScores | None = None
        for name, parameter in network.named_parameters():
            if is_never_trained(network, name):
                parameter.requires_grad_(False)

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
            ends_at = self.record.network.max_depth if self.network.saturates else None
            reach = focal_px / canonical_px * (ends_at or float("inf"))
            self._cameras.note(focal_px, batch["depth"], batch["valid"], reach)
        return to_metres(depth, focal_px, canonical_px)

    def setup(self, stage: str) -> None:
        check_precision(self.trainer)

    def training_step(self, batch: DepthBatch, batch_idx: int) -> Tensor:
        self._note_skipped(batch)
        depth = self.metres(self(batch["image"]), batch)
        target, valid = batch["depth"], batch["valid"]
        self._trained_pixels += valid.sum()
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
        if self.record.adapter is not None:
            penalty = orthogonality(self.network, self.record.adapter)
            if penalty is not None:
                self.log("train/orthogonality", penalty.detach(), batch_size=size)
                loss = loss + penalty
        self.log("loss", loss.detach(), prog_bar=True, batch_size=size)
        if scored.any():
            self.log("delta1", delta1.float(), prog_bar=True, batch_size=size)
        return loss

    def validation_step(self, batch: DepthBatch, batch_idx: int) -> Tensor:
        return self._evaluate(batch, self.val_metrics, Scoring())

    def test_step(self, batch: DepthBatch, batch_idx: int) -> Tensor:
        depth = self._evaluate(batch, self.test_metrics, self.scoring)
        if self.scoring.boundary:
            self.test_boundary.update(depth, batch["depth"], batch["valid"])
        return depth

    def on_validation_epoch_end(self) -> None:
        self._log_means("val", self.val_metrics)

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

    def on_train_start(self) -> None:
        """A resumed run follows its own options, not those of the checkpoint."""
        if self.trainer.ckpt_path is None:
            return
        (optimizer,) = self.trainer.optimizers
        schedules = [each.scheduler for each in self.trainer.lr_scheduler_configs]
        schedule = schedules[0] if schedules else None
        if not isinstance(schedule, OneCycle):
            return  # Lightning's weight averaging took the rates over
        schedule.steps = steps_in_all(self.trainer)
        if changes := self.optimisation.apply(optimizer, schedule):
            rank_zero_info(
                f"resumed at step {schedule.last_epoch} with {'; '.join(changes)}: "
                "rates follow one cycle over all steps from where it stands"
            )

    def on_train_epoch_start(self) -> None:
        self._trained_pixels = torch.zeros((), dtype=torch.long, device=self.device)

    def on_train_epoch_end(self) -> None:
        pixels = self.trainer.strategy.reduce(self._trained_pixels, reduce_op="sum")
        if int(pixels) == 0:
            raise DataError(
                "no training frame had a pixel to learn from: all truth is unknown or "
                f"beyond {self.protocol.max_depth:g} m; is depth_scale (units per "
                "metre) or max_depth wrong?"
            )
        check_weights(self.network.named_parameters(), self.trainer.global_step)
        if self.network.canonical_focal_px is not None:
            self._report_cameras(self.network.canonical_focal_px)
        self._report_skipped()

    def on_test_epoch_end(self) -> None:
        self._log_means("test", self.test_metrics)
        if self.scoring.boundary:
            self.boundary = self.test_boundary.scores()

    def configure_optimizers(self) -> Any:
        steps = steps_of(self.trainer)
        optimizer, schedule = self.optimisation.make(self.network, steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        names = self.record.saved_names(self.network)
        for part in STATES & checkpoint.keys():
            state = checkpoint[part]
            checkpoint[part] = {
                key: state[key] for key in (f"network.{name}" for name in names)
            }
        record = replace(
            self.record,
            scores=self.scores,
            focals_px=self._cameras.focals_px(),
            image_shrink=image_shrink(self.trainer),
        ).to_dict()
        record["training"] = self.optimisation.kind()
        checkpoint[KEY] = record

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        found = record_of(checkpoint, self.record)
        self.scores = found.scores
        self._cameras = SeenCameras(found.focals_px)
        check_shrink(found, image_shrink(self.trainer))
        if self.trainer.state.fn == TrainerFn.FITTING:
            self.check_resumable(checkpoint)
            if AVERAGED in checkpoint:
                whole = self.state_dict()
                checkpoint |= {part: whole | checkpoint[part] for part in STATES}
            return
        if changes := differences(self.record.adapter, found.adapter):
            # Its own adapter alone gives its tensors a meaning.
            changed = "; ".join(changes)
            rank_zero_warn(f"the checkpoint's own adapter is used: {changed}")
            self.network, self.record = found.adapted(), found
        tensors = network_tensors(checkpoint["state_dict"])
        self.record.check_tensors(self.network, tensors)

    def check_resumable(self, checkpoint: Mapping[str, Any]) -> None:
        """Refuse to train on from a checkpoint that means something else.

        Raises:
            CheckpointError: Naming what differs.
        """
        check_resumable(checkpoint, self.record, self.network, self.optimisation)

    @property
    def protocol(self) -> Protocol:
        """The evaluation rules of the data at hand."""
        return cast(Scored, self.trainer.datamodule).protocol  # type: ignore[attr-defined]

    def _evaluate(
        self, batch: DepthBatch, metrics: DepthMetrics, scoring: Scoring
    ) -> Tensor:
        """Score one batch; returns the prediction (B, 1, H, W) at the truth's size."""
        self._note_skipped(batch)
        protocol = self.protocol
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

    def _report_cameras(self, canonical_px: float) -> None:
        """Gather the focal lengths seen; say so where truth was out of reach."""
        ranges = self.all_gather(self._cameras.own.to(self.device))
        self._cameras.gathered(cast(Tensor, ranges))
        if line := self._cameras.out_of_reach(canonical_px, self.protocol.max_depth):
            rank_zero_warn(line)

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

    def _log_means(self, stage: str, metrics: DepthMetrics) -> None:
        means = metrics.compute()
        metrics.reset()
        self.images[stage] = int(means.pop("n_images"))
        empty = self.empty[stage] = int(means.pop("n_empty"))
        bad, self._broken = self._broken, torch.zeros_like(self._broken)
        bad = self.trainer.strategy.reduce(bad, reduce_op="sum")
        check_predictions(int(bad), self.images[stage] + empty, stage)
        if self.images[stage] == 0:
            raise DataError(
                f"none of the {empty} {stage} images has a pixel that counts in "
                f"protocol {self.protocol.name}: all truth is unknown or outside "
                f"{self.protocol.min_depth:g}-{self.protocol.max_depth:g} m; is "
                "depth_scale (units per metre) or max_depth wrong?"
            )
        self._report_skipped()
        if empty:
            rank_zero_warn(
                f"{empty} {stage} images have no valid pixel and were not averaged"
            )
        if stage == "val" and not self.trainer.sanity_checking:
            self.scores = {
                "protocol": self.protocol.name,
                "n_images": self.images[stage],
                "metrics": {name: float(value) for name, value in means.items()},
            }
        # The metric is in step already; sync_dist only keeps Lightning from warning.
        self.log_dict(
            {f"{stage}/{name}": value for name, value in means.items()}, sync_dist=True
        )
