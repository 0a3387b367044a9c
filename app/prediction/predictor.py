"""Depth of pictures, in one pass, with a mirrored one, or in tiles."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from app.prediction.batch import PhotographBatch, Step
from app.prediction.model import Given, Model
from models.alignment import aligned
from models.networks.depth_network import with_flip


class Predictor(Step):
    """A network that predicts pictures, with the adapter of each.

    Args:
        model: Made ready to predict.
        given: What counts for each picture, by its index.
        tta: Average with the prediction of the mirrored picture.
        tiles: For each picture the size (rows, cols) of overlapping tiles, whose
            predictions are fitted to the whole picture's and blended; None for one
            pass.
        factors: What makes metres of each picture's prediction, where a network
            predicts for a canonical camera.
    """

    def __init__(
        self,
        model: Model,
        given: Sequence[Given],
        *,
        tta: bool,
        tiles: Sequence[tuple[int, int]] | None,
        factors: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.chosen = model.ready(), model.chosen
        self.given, self.tta, self.tiles = given, tta, tiles
        self.factors = factors

    def forward(self, image: Tensor) -> Tensor:
        if self.tta:
            return with_flip(self.network, image)
        depth: Tensor = self.network(image)
        return depth

    def step(self, batch: PhotographBatch) -> Tensor:
        """Depth (B, h, w) at the size of the inputs; `at_size` makes it the pictures'.

        That is left to the moment when one is written: eight maps of 24 Mpx are 0.8 GB.
        """
        image, indices = batch["image"], batch["index"]
        depth: Tensor
        if all(batch["error"]):
            return image.new_zeros(len(image), 0, 0)
        if self.tiles is None:
            with self.chosen([self.given[i].adapter for i in indices]):
                depth = self(image)
        else:
            depth = torch.cat(
                [
                    self._tiled(one[None], i)
                    for one, i in zip(image, indices, strict=True)
                ]
            )
        depth = depth[:, 0].float().cpu()
        if self.factors is None:
            return depth
        factors = [self.factors[i] for i in indices]
        return of_cameras(depth, factors, [self.given[i] for i in indices])

    def _tiled(self, image: Tensor, index: int) -> Tensor:
        assert self.tiles is not None
        with self.chosen([self.given[index].adapter]):
            return tiled(self, image, self.tiles[index])


def of_cameras(
    depth: Tensor, factors: Sequence[float], given: Sequence[Given]
) -> Tensor:
    """Metres (B, h, w) of each picture's own camera.

    Args:
        depth: (B, h, w) float32 for the canonical ones.
        factors: Focal length of each, divided by that of its canonical camera; 1 where
            the network predicts for any camera.
        given: What counts for each.
    """
    # Beyond max_depth nothing was learned, whatever the camera.
    furthest = torch.tensor([own.reach for own in given])
    depth = depth * torch.tensor(factors)[:, None, None]
    return torch.minimum(depth, furthest[:, None, None])


def at_size(depth: Tensor, size: tuple[int, int]) -> NDArray[np.float32]:
    """A depth map (h, w) at a picture's own size (rows, cols)."""
    if depth.shape != size:
        maps = depth[None, None]
        depth = F.interpolate(maps, size, mode="bilinear", align_corners=True)[0, 0]
    return depth.numpy()


def tiled(network: nn.Module, image: Tensor, tile: tuple[int, int]) -> Tensor:
    """Depth of a picture that is larger than the network's input.

    Tiles overlap by half. Each one's prediction is fitted (scale and shift, least
    squares) to the whole picture's, which alone sees what is near and what is far, and
    they are blended with weights that fall to zero at a tile's edge.

    Args:
        network: Images (B, 3, h, w) to depth (B, 1, h, w).
        image: (1, 3, H, W).
        tile: (rows, cols).

    Returns:
        (1, 1, H, W).
    """
    rows, cols = image.shape[-2:]
    size = (min(tile[0], rows), min(tile[1], cols))
    small = F.interpolate(image, tile, mode="bilinear", antialias=True)
    whole = F.interpolate(
        network(small).float(), (rows, cols), mode="bilinear", align_corners=True
    )
    if size == (rows, cols):
        return whole
    weight = _window(size[0], image)[:, None] * _window(size[1], image)[None]
    total, weights = torch.zeros_like(whole), torch.zeros_like(whole)
    for top in _starts(rows, size[0]):
        for left in _starts(cols, size[1]):
            part = (..., slice(top, top + size[0]), slice(left, left + size[1]))
            depth, target = network(image[part]).float(), whole[part]
            everywhere = torch.ones_like(target, dtype=torch.bool)
            fitted = aligned(depth, target, everywhere, "scale_shift", float("inf"))
            total[part] += weight * fitted.to(total)
            weights[part] += weight
    # A fitted shift may leave the range, which no prediction does.
    return (total / weights).clamp(whole.min(), whole.max())


def _starts(length: int, tile: int) -> list[int]:
    """Evenly spread starts of tiles that overlap by at least half."""
    if length == tile:
        return [0]
    count = max(-(-(length - tile) * 2 // tile), 1) + 1
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def _window(length: int, like: Tensor) -> Tensor:
    """A raised cosine over a tile, above zero everywhere."""
    steps = torch.arange(length, device=like.device, dtype=torch.float32)
    place = (steps + 0.5) / length
    return torch.sin(torch.pi * place).square().clamp(min=1e-3)
