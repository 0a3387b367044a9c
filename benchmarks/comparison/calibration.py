"""The least that adaptation can be: one scale and one shift for every pixel."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import least_squares
from torch import Tensor

from benchmarks.comparison.tasks import TaskData
from models.depth_module import DepthModule
from models.networks.interface import DepthPredictor

PIXELS_PER_IMAGE = 256
MIN_DEPTH_M = 1e-3


class Calibrated(DepthPredictor):
    """A network whose depth is multiplied by a scale and moved by a shift."""

    def __init__(self, network: DepthPredictor, scale: float, shift: float) -> None:
        super().__init__()
        self.spec = network.spec
        self.network, self.scale, self.shift = network, scale, shift

    def forward(self, image: Tensor) -> Tensor:
        depth: Tensor = self.network(image)
        return (self.scale * depth + self.shift).clamp(min=MIN_DEPTH_M)


@torch.no_grad()
def calibrate(module: DepthModule, data: TaskData) -> tuple[float, float]:
    """Scale and shift (metres) with the least squares of ln depth on training frames.

    On some pixels of every frame, drawn by the data's seed.
    """
    rng = np.random.default_rng(data.seed)
    predicted, truth = [], []
    for item in data.plain_items():
        depth = module(item["image"][None])[0][item["valid"]].double().numpy()
        chosen = rng.permutation(len(depth))[:PIXELS_PER_IMAGE]
        predicted.append(depth[chosen])
        truth.append(item["depth"][item["valid"]].double().numpy()[chosen])
    d, log_g = np.concatenate(predicted), np.log(np.concatenate(truth))

    def residual(x: NDArray[np.float64]) -> NDArray[np.float64]:
        fitted = np.maximum(x[0] * d + x[1], MIN_DEPTH_M)
        errors: NDArray[np.float64] = np.log(fitted) - log_g
        return errors

    start = np.array([np.exp(log_g.mean() - np.log(d).mean()), 0.0])
    scale, shift = least_squares(residual, start).x
    return float(scale), float(shift)
