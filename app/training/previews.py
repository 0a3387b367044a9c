"""Pictures of what a network sees: image, truth, prediction and error side by side."""

from typing import Any

import cv2
import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from torch import Tensor

from app.training.folder import RunCallback
from datamodules.base import DepthDataModule
from datamodules.batch import DepthBatch, ImageInput
from datamodules.files.depths.writing import colour
from datamodules.files.whole import write_bytes
from datamodules.inputs import resize_image

SIDE_PX = 480
"""Of each of a panel's four pictures, at most."""
ERROR_RANGE = 0.5
"""Relative error at which the error's colour is the last one."""


class Previews(RunCallback):
    """Panels of the first validation frames, to TensorBoard and `previews/*.png`.

    Args:
        frames: How many frames; 0 draws nothing.
        every_n_epochs: How often.
    """

    def __init__(self, frames: int = 4, every_n_epochs: int = 1) -> None:
        self.frames, self.every_n_epochs = frames, max(every_n_epochs, 1)
        self._rows: list[NDArray[np.uint8]] = []

    @rank_zero_only
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: DepthBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        last = trainer.max_epochs is not None and (
            trainer.current_epoch == trainer.max_epochs - 1
        )
        due = trainer.sanity_checking or last
        if due or trainer.current_epoch % self.every_n_epochs == 0:
            wanted = self.frames - len(self._rows)
            whole = trainer.datamodule  # type: ignore[attr-defined]
            if not isinstance(whole, DepthDataModule):
                return
            data = whole.source_of(batch)
            for i in range(min(wanted, len(batch["path"]))):
                self._rows.append(
                    panel(batch, outputs, i, data.max_depth, data.image_input)
                )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rows, self._rows = self._rows, []
        if not rows:
            return
        picture = _stacked(rows)
        step = 0 if trainer.sanity_checking else trainer.global_step
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(
                    "val/image_truth_prediction_error",
                    picture,
                    step,
                    dataformats="HWC",
                )
        if self.folder is None:
            return
        folder = self.folder / "previews"
        folder.mkdir(parents=True, exist_ok=True)
        done, png = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        assert done
        write_bytes(folder / f"step_{step:06d}.png", png.data)


def panel(
    batch: DepthBatch,
    depth: Tensor,
    index: int,
    max_depth: float,
    image_input: ImageInput,
) -> NDArray[np.uint8]:
    """RGB (h, 4 w, 3): image, truth, prediction, relative error of one frame.

    Truth above `SIDE_PX` is thinned out, and the prediction at the same pixels.

    Args:
        batch: A validation batch.
        depth: Its prediction (B, 1, H, W), metres.
        index: Which frame.
        max_depth: Metres at the far end of the colours.
        image_input: How the images were normalised.
    """
    rows, cols = batch["size"][index]
    shrink = min(SIDE_PX / max(rows, cols), 1.0)
    size = (max(round(rows * shrink), 1), max(round(cols * shrink), 1))
    image = batch["image"][index].float().cpu()
    mean, std = torch.tensor(image_input.mean), torch.tensor(image_input.std)
    pixels = (image * std[:, None, None] + mean[:, None, None]).clamp(0, 1) * 255
    rgb = np.ascontiguousarray(pixels.byte().permute(1, 2, 0).numpy())
    place = (_spread(rows, size[0])[:, None], _spread(cols, size[1])[None])
    target, predicted, valid = (
        maps[index, 0].cpu()[place].numpy()
        for maps in (batch["depth"], depth, batch["valid"])
    )
    relative = np.abs(predicted - target) / np.where(valid, target, 1)
    level = (relative / ERROR_RANGE).clip(0, 1) * 255
    error = cv2.applyColorMap(level.astype(np.uint8), cv2.COLORMAP_MAGMA)[..., ::-1]
    return np.hstack(
        (
            resize_image(rgb, size),
            colour(np.where(valid, target, 0), max_depth),
            colour(predicted, max_depth),
            np.where(valid[..., None], error, 0).astype(np.uint8),
        )
    )


def _spread(length: int, count: int) -> Tensor:
    """The middles of `count` equal parts."""
    return ((torch.arange(count) + 0.5) * length / count).long()


def _stacked(panels: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Panels of several sizes below each other, black beside the narrower ones."""
    width = max(panel.shape[1] for panel in panels)
    return np.vstack(
        [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0))) for p in panels]
    )
