"""Training and evaluation of any depth network: one step, one loss, nine metrics."""

from dataclasses import dataclass, replace
from typing import Any, cast
from typing import Protocol as Interface

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from datamodules.batch import DepthBatch
from datamodules.protocols import Protocol
from models.adapters import is_never_trained, orthogonality
from models.adapters.state import check_tensors, check_version
from models.losses import silog
from models.metrics import DepthMetrics, per_image
from models.networks import DepthNetwork
from models.record import (
    KEY,
    CheckpointError,
    Record,
    network_tensors,
    saved_names,
)


class OptionError(Exception):
    """An option of training outside its range; the message says which."""


@dataclass(frozen=True)
class Optimisation:
    """How the trainable tensors are trained."""

    adapter_lr: float = 1e-3
    """Peak learning rate of the adapters."""
    head_lr: float = 1e-4
    """Peak learning rate of everything that is trained in full."""
    weight_decay: float = 0.01
    """AdamW's, on matrices trained in full; adapters have their own penalty."""
    warmup: float = 0.1
    """Fraction of all steps in which the rate rises; then it falls as a cosine."""
    variance_focus: float = 0.85
    """Lambda of the SiLog loss: 0.85 in BTS and ZoeDepth, 0.5 in Depth Anything V2."""

    def __post_init__(self) -> None:
        rates = (self.adapter_lr, self.head_lr)
        if min(rates) < 0 or self.weight_decay < 0:
            raise OptionError(
                f"learning rates {rates} and weight_decay {self.weight_decay} must not "
                "be negative"
            )
        if not 0 < self.warmup < 1 or not 0 <= self.variance_focus <= 1:
            raise OptionError(
                f"warmup {self.warmup} must lie between 0 and 1, and variance_focus "
                f"{self.variance_focus} from 0 to 1"
            )


class Scored(Interface):
    """What evaluation has to know of a data module."""

    protocol: Protocol


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
        self, network: DepthNetwork, record: Record, optimisation: Optimisation
    ) -> None:
        super().__init__()
        # Checkpoints lack the frozen base; `on_load_checkpoint` checks what is there.
        self.strict_loading = False
        self.network = network
        self.record = record
        self.optimisation = optimisation
        self.images: dict[str, int] = {}
        """How many images each stage's last score is the mean of."""
        self.scores = record.scores
        self.val_metrics = DepthMetrics()
        self.test_metrics = DepthMetrics()
        for name, parameter in network.named_parameters():
            if is_never_trained(network, name):
                parameter.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Depth (B, 1, h, w) in metres of normalised images (B, 3, h, w)."""
        depth: Tensor = self.network(image)
        return depth

    def training_step(self, batch: DepthBatch, batch_idx: int) -> Tensor:
        depth = self(batch["image"])
        target, valid = batch["depth"], batch["valid"]
        focus = self.optimisation.variance_focus
        loss = silog(depth, target, valid, focus)
        with torch.no_grad():
            scored = valid.flatten(1).any(1)
            delta1 = per_image(depth, target, valid)[scored, 0].mean()
        size = len(target)
        self.log("train/silog", loss.detach(), batch_size=size)
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
        return self._evaluate(batch, self.val_metrics)

    def test_step(self, batch: DepthBatch, batch_idx: int) -> Tensor:
        return self._evaluate(batch, self.test_metrics)

    def on_validation_epoch_end(self) -> None:
        self._log_means("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        self._log_means("test", self.test_metrics)

    def configure_optimizers(self) -> Any:
        options = self.optimisation
        groups: dict[str, list[nn.Parameter]] = {"adapter": [], "head": [], "flat": []}
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                flat = "flat" if parameter.ndim < 2 else "head"
                groups["adapter" if ".adapter." in name else flat].append(parameter)
        settings = {
            "adapter": (options.adapter_lr, 0.0),
            "head": (options.head_lr, options.weight_decay),
            "flat": (options.head_lr, 0.0),
        }
        used = [name for name, parameters in groups.items() if parameters]
        optimizer = AdamW(
            [
                {
                    "params": groups[name],
                    "lr": settings[name][0],
                    "weight_decay": settings[name][1],
                    "name": name,
                }
                for name in used
            ]
        )
        scheduler = OneCycleLR(
            optimizer,
            max_lr=[settings[name][0] for name in used],
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=options.warmup,
            cycle_momentum=False,
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        names = saved_names(self.network, self.record)
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {
            key: state[key] for key in (f"network.{name}" for name in names)
        }
        checkpoint[KEY] = replace(self.record, scores=self.scores).to_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if KEY not in checkpoint:
            raise CheckpointError(
                "the checkpoint was not written by this project's training"
            )
        check_version(checkpoint[KEY], "the checkpoint")
        record = Record.from_dict(checkpoint[KEY])
        record.check_base(self.record.base_sha256)
        if record.network != self.record.network:
            raise CheckpointError(
                f"the checkpoint is of {record.network}, but the configuration asks "
                f"for {self.record.network}; use the configuration it was trained with"
            )
        names = saved_names(self.network, self.record)
        check_tensors(self.network, names, network_tensors(checkpoint["state_dict"]))

    @property
    def protocol(self) -> Protocol:
        """The evaluation rules of the data at hand."""
        return cast(Scored, self.trainer.datamodule).protocol  # type: ignore[attr-defined]

    def _evaluate(self, batch: DepthBatch, metrics: DepthMetrics) -> Tensor:
        """Score one batch; returns the prediction (B, 1, H, W) at the truth's size."""
        protocol = self.protocol
        shape = batch["depth"].shape[-2:]
        depth = resize_each(
            self(batch["image"]), batch["size"], shape, protocol.align_corners
        )
        depth = depth.clamp(protocol.min_depth, protocol.max_depth)
        metrics.update(depth, batch["depth"], batch["valid"])
        return depth

    def _log_means(self, stage: str, metrics: DepthMetrics) -> None:
        means = metrics.compute()
        metrics.reset()
        self.images[stage] = int(means.pop("n_images"))
        empty = int(means.pop("n_empty"))
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


def resize_each(
    depth: Tensor,
    sizes: list[tuple[int, int]],
    shape: tuple[int, ...],
    align_corners: bool,
) -> Tensor:
    """Resize (B, 1, h, w) bilinearly to each image's own size, padded with ones.

    Args:
        depth: Metres.
        sizes: (rows, cols) of each image's truth.
        shape: (H, W) of the padded batch.
        align_corners: As in `torch.nn.functional.interpolate`.
    """

    def resized(maps: Tensor, size: tuple[int, ...]) -> Tensor:
        if maps.shape[-2:] == size:
            return maps
        return F.interpolate(maps, size, mode="bilinear", align_corners=align_corners)

    if all(size == tuple(shape) for size in sizes):
        return resized(depth, tuple(shape))
    whole = depth.new_ones((len(sizes), 1, *shape))
    for i, (rows, cols) in enumerate(sizes):
        whole[i : i + 1, :, :rows, :cols] = resized(depth[i : i + 1], (rows, cols))
    return whole
