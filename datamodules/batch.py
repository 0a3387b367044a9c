"""What the data floor hands to the model floor: one frame, one item, one batch."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import NotRequired, Protocol, Self, TypedDict

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.errors import DataError as DataError
from datamodules.sizes import Shrink

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ReadsImages(Protocol):
    """A network's own words for the images that it reads."""

    patch_px: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]

    @property
    def canonical_focal_px(self) -> float | None:
        """Of the one camera that it predicts for; None for any camera."""


@dataclass(frozen=True)
class ImageInput:
    """The images that a network reads; the defaults are DINOv2's."""

    patch_px: int = 14
    """Both sides are multiples of it."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Subtracted from RGB in 0..1."""
    std: tuple[float, float, float] = IMAGENET_STD
    """What the difference is divided by."""
    focal: bool = False
    """Whether it has to be known with what focal length an image was taken."""
    shrink: Shrink = "area"
    """How larger pictures are made smaller: as it was trained, where that is known."""

    @classmethod
    def of(cls, network: ReadsImages, shrink: Shrink = "area") -> Self:
        """What a network reads, and how larger pictures were made smaller for it."""
        return cls(
            network.patch_px,
            network.image_mean,
            network.image_std,
            focal=network.canonical_focal_px is not None,
            shrink=shrink,
        )


@dataclass(frozen=True)
class Frame:
    """One RGB-D frame as it lies on disk, before any resizing."""

    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    depth: NDArray[np.float32]
    """(H, W) metres along the optical axis, 0 where unknown."""
    path: str
    """Where it came from, for messages and file names."""
    intrinsics: NDArray[np.float32] | None = None
    """(3, 3) pinhole matrix, pixels of this frame."""


class Frames(Dataset[Frame]):
    """A data set before any transform: all that a new data set has to offer."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Frame: ...


class DepthItem(TypedDict):
    """One sample; the same keys and shapes as `DepthBatch` without B."""

    image: Tensor
    depth: Tensor
    valid: Tensor
    size: tuple[int, int]
    path: str
    skipped: str
    intrinsics: NotRequired[Tensor]
    adapter: NotRequired[str]


class DepthBatch(TypedDict):
    """The plank between `datamodules` and `models`."""

    image: Tensor
    """(B, 3, h, w) float32, normalised and in whole patches as the network wants it
    (`ImageInput`)."""
    depth: Tensor
    """(B, 1, H, W) float32 metres, 0 where unknown.

    (H, W) is (h, w) in training. In evaluation it is the depth map's own size: the
    image is resized, the truth never; maps of several sizes are padded with invalid
    pixels to the largest.
    """
    valid: Tensor
    """(B, 1, H, W) bool: known, and within the protocol's range and crop."""
    size: list[tuple[int, int]]
    """Each depth map's own (rows, cols), before padding."""
    path: list[str]
    skipped: list[str]
    """Why frames could not be read and are left out or replaced (`on_error: skip`)."""
    intrinsics: NotRequired[Tensor]
    """(B, 3, 3) pinhole matrices in pixels of `depth`, where every frame has one."""
    adapter: NotRequired[list[str]]
    """Of mixed data: the name of each example's source, which its adapter has, too."""
