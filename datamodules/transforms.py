"""Frames to tensors: what training changes, and what evaluation leaves alone."""

import os
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.batch import DepthItem, Frame, ImageInput
from datamodules.errors import DataError
from datamodules.inputs import normalise, resize_image
from datamodules.protocols import Box, Protocol, WindowName, window_box
from datamodules.sizes import lower_bound

# Importing albumentations asks the network for a newer version unless this is set.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A
import cv2


@dataclass(frozen=True)
class Augment:
    """What training does to a frame; the defaults are ZoeDepth's."""

    resize: Literal["full", "lower_bound"] = "full"
    """`full`: the frame is brought to the input size whatever its shape (Depth Anything
    V1); `lower_bound`: it keeps its shape, both sides become at least the input's, and
    a random crop of the input's size is taken (Depth Anything V2)."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Range of the zoom before a random crop; 1 keeps the whole frame."""
    crop: tuple[int, int] | None = None
    """A random crop (rows, cols) of the input that is trained on instead of it, in
    whole patches; evaluation still sees whole frames."""
    rotate_deg: float = 0.0
    """Largest rotation to either side; truth by nearest neighbour, corners unknown."""
    flip: float = 0.5
    """Probability of a left-right flip."""
    colour: float = 0.5
    """Probability of a change of gamma, brightness and colour balance."""
    brightness: tuple[float, float] = (0.75, 1.25)
    """Range of the brightness factor: ZoeDepth's on NYU; on KITTI it is 0.9-1.1."""

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
        if not 0 < self.brightness[0] <= self.brightness[1]:
            raise DataError(
                f"augment brightness {self.brightness} must be (low, high) with "
                "0 < low <= high"
            )
        if not 0 <= self.rotate_deg <= 45:
            raise DataError(
                f"augment rotate_deg {self.rotate_deg} must be from 0 to 45 degrees"
            )


class TrainTransform:
    """Cut, resize and augment image, depth and intrinsics together.

    Deterministic: the same (seed, epoch, index) gives the same sample whatever the
    number of workers or processes.

    Args:
        size: Network input (rows, cols).
        protocol: Its range tells which truth counts; its crop is for scores alone.
        augment: What to change.
        seed: Of all randomness.
        window: Part of the frame that is used.
        image_input: What the network reads.
    """

    def __init__(
        self,
        size: tuple[int, int],
        protocol: Protocol,
        augment: Augment,
        seed: int,
        window: WindowName = "none",
        image_input: ImageInput = ImageInput(),  # noqa: B008 - frozen
    ) -> None:
        self.size, self.protocol, self.augment = size, protocol, augment
        self.seed, self.window, self.image_input = seed, window, image_input
        self.steps = A.Compose(
            _steps(size, augment),
            keypoint_params=A.KeypointParams("xy", remove_invisible=False),
        )

    def __call__(self, frame: Frame, epoch: int, index: int) -> DepthItem:
        check_focal(frame, self.image_input)
        rows, cols = frame.depth.shape
        frame = cut(frame, window_box(self.window, rows, cols))
        size = self.size
        if self.augment.resize == "lower_bound":
            rows, cols = frame.depth.shape
            size = lower_bound((rows, cols), self.size, self.image_input.patch_px)
        image = resize_image(frame.image, size, self.image_input.shrink)
        # Nearest: a mean across an object's edge would be a depth that nothing has.
        depth = cv2.resize(
            frame.depth, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT
        )
        points = _as_points(frame, size)
        self.steps.set_random_seed(zlib.crc32(f"{self.seed}/{epoch}/{index}".encode()))
        changed = self.steps(image=image, mask=depth, keypoints=points)
        return _item(
            normalise(changed["image"], self.image_input),
            changed["mask"],
            self.protocol.in_range(changed["mask"]),
            frame.path,
            _from_points(changed["keypoints"]),
        )


def _steps(size: tuple[int, int], augment: Augment) -> list[A.BasicTransform]:
    """Albumentations' steps for a frame that is at least as large as the input."""
    low, high = augment.scale
    steps: list[A.BasicTransform] = []
    if high > 1:
        steps.append(A.RandomScale((low - 1, high - 1), p=1))
    if high > 1 or augment.resize == "lower_bound":
        steps.append(A.RandomCrop(*size))
    if augment.crop is not None:
        steps.append(A.RandomCrop(*augment.crop))
    if augment.rotate_deg > 0:
        # What turns in from outside is black and unknown.
        steps.append(
            A.Rotate(
                augment.rotate_deg,
                interpolation=cv2.INTER_LINEAR,
                mask_interpolation=cv2.INTER_NEAREST,
                border_mode=cv2.BORDER_CONSTANT,
                fill=0,
                fill_mask=0,
                p=1,
            )
        )
    # ZoeDepth `data_mono.py: augment_image`: all three, or none.
    photometric = [
        A.RandomGamma((90, 110), p=1),
        A.MultiplicativeNoise(augment.brightness, p=1),
        A.MultiplicativeNoise((0.9, 1.1), per_channel=True, p=1),
    ]
    return [
        *steps,
        A.HorizontalFlip(p=augment.flip),
        A.Sequential(photometric, p=augment.colour),
    ]


class EvalTransform:
    """Resize the image only; the truth keeps its own size."""

    def __init__(
        self,
        size: tuple[int, int],
        protocol: Protocol,
        image_input: ImageInput = ImageInput(),  # noqa: B008 - frozen
    ) -> None:
        self.size, self.protocol, self.image_input = size, protocol, image_input

    def __call__(self, frame: Frame) -> DepthItem:
        check_focal(frame, self.image_input)
        rows, cols = frame.depth.shape
        valid = self.protocol.valid(frame.depth)
        box = window_box(self.protocol.window, rows, cols)
        frame = cut(frame, box)
        size = self.size
        if self.protocol.resize == "lower_bound":
            rows, cols = frame.depth.shape
            least = self.protocol.input_px
            wanted = size if least is None else (least, least)
            size = lower_bound((rows, cols), wanted, self.image_input.patch_px)
        image = resize_image(frame.image, size, self.image_input.shrink)
        return _item(
            normalise(image, self.image_input),
            frame.depth,
            valid[box.top : box.bottom, box.left : box.right],
            frame.path,
            frame.intrinsics,
        )


def check_focal(frame: Frame, wanted: ImageInput) -> None:
    """Refuse a frame without a focal length where the network needs one.

    Raises:
        DataError: Naming the frame.
    """
    if not wanted.focal:
        return
    k = frame.intrinsics
    if k is None or not (np.isfinite(k).all() and k[0, 0] > 0 and k[1, 1] > 0):
        raise DataError(
            f"{frame.path} has no focal length, which a network with a canonical "
            "camera needs; give the data's intrinsics, or leave model.camera at any"
        )


def cut(frame: Frame, box: Box) -> Frame:
    """The part of a frame within a box, its intrinsics moved along."""
    rows, cols = frame.depth.shape
    if box == (0, rows, 0, cols):
        return frame
    part = (slice(box.top, box.bottom), slice(box.left, box.right))
    k = frame.intrinsics
    if k is not None:
        k = k.copy()
        k[0, 2] -= box.left
        k[1, 2] -= box.top
    return Frame(frame.image[part], frame.depth[part], frame.path, k)


def _item(
    image: Tensor,
    depth: NDArray[np.float32],
    valid: NDArray[np.bool_],
    path: str,
    intrinsics: NDArray[np.float32] | None,
) -> DepthItem:
    item = DepthItem(
        image=image,
        depth=torch.from_numpy(np.ascontiguousarray(depth)[None]),
        valid=torch.from_numpy(np.ascontiguousarray(valid)[None]),
        size=(depth.shape[0], depth.shape[1]),
        path=path,
        skipped="",
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
