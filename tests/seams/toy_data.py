"""A data set in one file: planes at whole metres."""

import numpy as np

from datamodules.base import DepthDataModule, Split
from datamodules.batch import Frame, Frames
from datamodules.protocols import Protocol, full
from datamodules.transforms import Augment


class Planes(Frames):
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Frame:
        grey = np.full((32, 48, 3), 30 * (index + 1), np.uint8)
        return Frame(grey, np.full((32, 48), index + 1, np.float32), f"plane {index}")


class PlanesDataModule(DepthDataModule):
    def __init__(
        self, image_size: tuple[int, int] = (28, 42), max_depth: float = 10.0
    ) -> None:
        super().__init__(image_size, max_depth, 2, 0, 0, Augment())

    @property
    def protocol(self) -> Protocol:
        return full(self.max_depth)

    def frames(self, split: Split) -> Frames:
        return Planes(4 if split == "train" else 2)
