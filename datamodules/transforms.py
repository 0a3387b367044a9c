"""Frames to tensors: what training changes, and what evaluation leaves alone."""

import os
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.batch import IMAGENET_MEAN, IMAGENET_STD, DataError, DepthItem, Frame
from datamodules.protocols import Protocol

# Importing albumentations asks the network for a newer version unless this is set.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A
import cv2

PATCH_PX = 14


@dataclass(frozen=True)
class Augment:
    """What training does to a frame after it was brought to the input size."""

    flip: float = 0.5
    """Probability of a left-right flip."""
    colour: float = 0.5
    """Probability of a change of gamma, brightness and colour (ZoeDepth's ranges)."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Range of the zoom before a random crop; 1 keeps the whole frame."""

    def __post_init__(self) -> None:
        for name in ("flip", "colour"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(
                    f"augment {name} {getattr(self, name)} is no probability; "
                    "use a number from 0 to 1"
                )
        if not 1 <= self.scale[0] <= self.scale[1]:
            raise DataError(
                f"augment scale {self.scale} must be (low, high) with 1 <= low <= high"
            )


def check_image_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return `size` (rows, cols) if the network can take it, else say what it could."""
    if any(side < PATCH_PX or side % PATCH_PX for side in size):
        near = tuple(max(round(side / PATCH_PX), 1) * PATCH_PX for side in size)
        raise DataError(
            f"image_size {list(size)} (rows, cols) must be multiples of {PATCH_PX}; "
            f"the nearest is {list(near)}"
        )
    return size


def normalise(image: NDArray[np.uint8]) -> Tensor:
    """RGB (H, W, 3) uint8 to (3, H, W) float32 with ImageNet mean and deviation."""
    mean = np.array(IMAGENET_MEAN, np.float32) * 255
    std = np.array(IMAGENET_STD, np.float32) * 255
    scaled = (image.astype(np.float32) - mean) / std
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize RGB to (rows, cols): area average when shrinking, cubic when growing."""
    if image.shape[:2] == size:
        return image
    shrinks = image.shape[0] * image.shape[1] > size[0] * size[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    resized = cv2.resize(image, (size[1], size[0]), interpolation=method)
    return resized.astype(np.uint8, copy=False)


class TrainTransform:
    """Resize image, depth and intrinsics to one size, then augment them together.

    Deterministic: the same (seed, epoch, index) gives the same sample whatever the
    number of workers or processes.
    """

    def __init__(
        self, size: tuple[int, int], protocol: Protocol, augment: Augment, seed: int
    ) -> None:
        self.size, self.protocol, self.augment, self.seed = (
            size,
            protocol,
            augment,
            seed,
        )
        rows, cols = size
        low, high = augment.scale
        steps: list[A.BasicTransform] = []
        if high > 1:
            steps += [
                A.RandomScale((low - 1, high - 1), p=1),
                A.RandomCrop(rows, cols),
            ]
        steps += [
            A.HorizontalFlip(p=augment.flip),
            # ZoeDepth `data_mono.py: augment_image`: gamma 0.9-1.1, brightness
            # 0.75-1.25, each colour channel 0.9-1.1.
            A.RandomGamma((90, 110), p=augment.colour),
            A.ColorJitter(
                brightness=(0.75, 1.25),
                contrast=(0.9, 1.1),
                saturation=(0.9, 1.1),
                hue=(-0.02, 0.02),
                p=augment.colour,
            ),
        ]
        self.steps = A.Compose(
            steps,
            keypoint_params=A.KeypointParams("xy", remove_invisible=False),
        )

    def __call__(self, frame: Frame, epoch: int, index: int) -> DepthItem:
        rows, cols = self.size
        image = resize_image(frame.image, self.size)
        # Nearest: a mean across an object's edge would be a depth that nothing has.
        depth = cv2.resize(
            frame.depth, (cols, rows), interpolation=cv2.INTER_NEAREST_EXACT
        )
        points = _as_points(frame, (rows, cols))
        self.steps.set_random_seed(zlib.crc32(f"{self.seed}/{epoch}/{index}".encode()))
        changed = self.steps(image=image, mask=depth, keypoints=points)
        return _item(
            changed["image"],
            changed["mask"],
            self.protocol,
            frame.path,
            _from_points(changed["keypoints"]),
        )


class EvalTransform:
    """Resize the image only; the truth keeps its own size."""

    def __init__(self, size: tuple[int, int], protocol: Protocol) -> None:
        self.size, self.protocol = size, protocol

    def __call__(self, frame: Frame) -> DepthItem:
        return _item(
            resize_image(frame.image, self.size),
            frame.depth,
            self.protocol,
            frame.path,
            frame.intrinsics,
        )


def _item(
    image: NDArray[np.uint8],
    depth: NDArray[np.float32],
    protocol: Protocol,
    path: str,
    intrinsics: NDArray[np.float32] | None,
) -> DepthItem:
    item = DepthItem(
        image=normalise(image),
        depth=torch.from_numpy(np.ascontiguousarray(depth)[None]),
        valid=torch.from_numpy(protocol.valid(depth)[None]),
        size=(depth.shape[0], depth.shape[1]),
        path=path,
    )
    if intrinsics is not None:
        item["intrinsics"] = torch.from_numpy(intrinsics)
    return item


def _as_points(frame: Frame, size: tuple[int, int]) -> NDArray[np.float32]:
    """Principal point and one focal length to its right and below, as key points.

    Albumentations moves key points through every crop, zoom and flip, so intrinsics
    need no second set of rules.
    """
    k = frame.intrinsics
    if k is None:
        return np.zeros((0, 2), np.float32)
    zoom = np.array(
        [size[1] / frame.image.shape[1], size[0] / frame.image.shape[0]], np.float32
    )
    centre, right, below = (
        np.array([k[0, 2] + dx + 0.5, k[1, 2] + dy + 0.5]) * zoom - 0.5
        for dx, dy in ((0.0, 0.0), (k[0, 0], 0.0), (0.0, k[1, 1]))
    )
    return np.stack((centre, right, below)).astype(np.float32)


def _from_points(points: NDArray[np.float32]) -> NDArray[np.float32] | None:
    if len(points) == 0:
        return None
    centre, right, below = np.asarray(points, np.float32)
    focal_x = np.hypot(*(right - centre))
    focal_y = np.hypot(*(below - centre))
    return np.array(
        [[focal_x, 0, centre[0]], [0, focal_y, centre[1]], [0, 0, 1]], np.float32
    )
