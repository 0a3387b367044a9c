"""One camera for all: metres of many focal lengths in terms of a canonical one.

The same thing at half the distance with half the focal length looks the same, so that
metres cannot be told from a picture alone. A network with a canonical focal length
f_c predicts d f_c / f, and metres are its output times f / f_c, f in pixels of the
network's input (Yin et al., Metric3D, 2023, section 3.2: the label transform; Depth
Anything 3's metric network has f_c = 300). Logarithmic losses are equal on either side
of that factor, so loss, metrics and files all see metres.
"""

from typing import Literal

import torch
from torch import Tensor

from datamodules.batch import DepthBatch
from datamodules.errors import DataError
from models.errors import OptionError

CameraMode = Literal["any", "canonical"]
DEFAULT_FOCAL_PX = 300.0
"""Depth Anything 3's own."""


def canonical_focal(camera: CameraMode, focal_px: float | None) -> float | None:
    """The canonical focal length that options ask for, None for none.

    Raises:
        OptionError: If they do not go together.
    """
    if camera == "any":
        if focal_px is not None:
            raise OptionError(
                f"canonical_focal_px {focal_px:g} has no effect without camera: "
                "canonical"
            )
        return None
    return DEFAULT_FOCAL_PX if focal_px is None else focal_px


def input_focal_px(batch: DepthBatch) -> Tensor:
    """Focal length (B,) of each image in pixels of the network's input.

    The geometric mean of both axes: they differ where a frame was squashed.

    Raises:
        DataError: If the frames have none.
    """
    if "intrinsics" not in batch:
        raise DataError(
            f"the network needs each frame's focal length, and a frame among "
            f"{', '.join(batch['path'][:3])} has none"
        )
    k, sizes = batch["intrinsics"], batch["size"]
    rows, cols = batch["image"].shape[-2:]
    zoom = [(rows / r * cols / c) ** 0.5 for r, c in sizes]
    return (k[:, 0, 0] * k[:, 1, 1]).sqrt() * torch.tensor(zoom, device=k.device)


def to_metres(depth: Tensor, focal_px: Tensor, canonical_px: float) -> Tensor:
    """Metres (B, 1, h, w) of what was predicted for the canonical camera.

    Args:
        depth: (B, 1, h, w), metres as the canonical camera would have them.
        focal_px: (B,) of the network's input.
        canonical_px: The canonical focal length.
    """
    return depth * (focal_px / canonical_px).to(depth)[:, None, None, None]


class SeenCameras:
    """The range of focal lengths that training has seen, and what it could not say.

    Kept on the device, since asking for numbers at every step would make it wait.
    """

    def __init__(self, focals_px: tuple[float, float] | None = None) -> None:
        low, high = focals_px or (float("inf"), 0.0)
        self._range = torch.tensor([low, high])
        self._beyond = torch.zeros((), dtype=torch.long)

    def note(
        self, focal_px: Tensor, target: Tensor, valid: Tensor, reach: Tensor
    ) -> None:
        """Add a batch.

        Args:
            focal_px: (B,) of the network's input.
            target: (B, 1, h, w) metres.
            valid: Bool, likewise.
            reach: (B,) metres at which the output saturates.
        """
        batch = torch.stack((focal_px.min(), focal_px.max()))
        self.gathered(torch.stack((batch, self._range.to(batch))))
        far = valid & (target > reach[:, None, None, None])
        self._beyond = self._beyond.to(far.device) + far.sum()

    def gathered(self, ranges: Tensor) -> None:
        """Take in the ranges (processes, 2), as of all processes."""
        ranges = ranges.view(-1, 2)
        self._range = torch.stack((ranges[:, 0].min(), ranges[:, 1].max()))

    @property
    def own(self) -> Tensor:
        """(2,) the shortest and the longest, pixels."""
        return self._range

    def focals_px(self) -> tuple[float, float] | None:
        """The shortest and the longest in pixels; None before any."""
        low, high = (float(f) for f in self._range)
        return (low, high) if low <= high else None

    def out_of_reach(self, canonical_px: float, max_depth: float) -> str | None:
        """What to say of truth beyond reach since it was last asked; None of none."""
        beyond, focals_px = int(self._beyond), self.focals_px()
        self._beyond = torch.zeros_like(self._beyond)
        if not beyond or focals_px is None:
            return None
        return (
            f"{beyond} pixels' truth was out of reach: with canonical_focal_px "
            f"{canonical_px:g}, a focal length of {focals_px[0]:.0f} px ends at "
            f"{max_depth * focals_px[0] / canonical_px:.3g} m; set "
            f"model.canonical_focal_px to {focals_px[0]:.0f}"
        )
