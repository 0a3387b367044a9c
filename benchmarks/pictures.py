"""Pictures that cost a decoder about what photographs do."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.sizes import Size


def texture(size: Size, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A smooth picture (rows, cols, 3) with noise."""
    small = rng.uniform(0, 255, (12, 16, 3)).astype(np.float32)
    smooth = cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)
    return (smooth + rng.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8)


def write_folder(folder: Path, sizes: Iterable[Size]) -> None:
    """A new folder of JPEGs of these (rows, cols)."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number, size in enumerate(sizes):
        cv2.imwrite(str(folder / f"{number:04d}.jpg"), texture(size, rng))
