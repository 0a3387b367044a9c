"""Frozen evaluation protocols: which pixels count, and how a prediction meets them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.batch import DataError


@dataclass(frozen=True)
class Protocol:
    """The rules that two numbers must share before they may be compared."""

    name: str
    max_depth: float
    """Metres; truth beyond it does not count, predictions are clamped to it."""
    min_depth: float = 1e-3
    n_images: int | None = None
    """How many images the protocol's own list has; None if it has no list."""
    align_corners: bool = True
    """How a prediction is resized (bilinear) to the size of the truth."""

    def __post_init__(self) -> None:
        if not 0 < self.min_depth < self.max_depth:
            raise DataError(
                f"protocol {self.name}: depth range {self.min_depth}..{self.max_depth} "
                "m is not usable; it must be 0 < min_depth < max_depth"
            )

    def valid(self, depth: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Pixels of a depth map (H, W) in metres that count: strictly in range."""
        return (depth > self.min_depth) & (depth < self.max_depth)


def full(max_depth: float) -> Protocol:
    """Every known pixel nearer than `max_depth` metres, no crop, any data set."""
    return Protocol("full", max_depth)
