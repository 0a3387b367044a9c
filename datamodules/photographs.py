"""Photographs and video frames to predict depth for, without any truth."""

import math
from collections.abc import Iterator, Sequence
from typing import TypedDict

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from datamodules.batch import ImageInput
from datamodules.errors import DataError
from datamodules.files.images.decoding import read_image
from datamodules.files.images.headers import Exif, read_header
from datamodules.files.images.videos import VideoReader
from datamodules.files.pictures import Picture
from datamodules.inputs import normalise, resize_image
from datamodules.sizes import Shrink

NO_PIXELS = np.empty((0, 0, 3), np.uint8)


class Photograph(TypedDict):
    """One picture, ready for the network."""

    image: Tensor
    """(3, h, w) float32, ImageNet-normalised; zeros if it could not be read."""
    size: tuple[int, int]
    """The picture's own (rows, cols)."""
    pixels: NDArray[np.uint8]
    """(H, W, 3) RGB where they are kept, else empty."""
    index: int
    error: str
    """Why it could not be read; empty if it could."""


def size_and_focal(
    picture: Picture, exif: Exif
) -> tuple[tuple[int, int] | None, float | None]:
    """Size (rows, cols) that reading will give, and focal length, without decoding.

    Returns:
        The size, None if the picture cannot be read; the focal length in pixels from
        EXIF's 35 mm equivalent, None if it is not there.
    """
    if picture.frame is not None:
        return picture.frame_size, None
    try:
        header = read_header(picture.path)
    except DataError:
        return None, None
    return header.size(exif), header.focal_px


class Photographs(Dataset[Photograph]):
    """Pictures resized to the network's input; unreadable ones carry their error.

    Args:
        pictures: From `find_images`.
        shapes: Network input (rows, cols) of each.
        keep_pixels: Whether the picture itself is needed later: it is large.
        image_input: What the network reads.
        exif: Whether pictures are turned upright by their EXIF orientation.
        shrinks: How each one, if it is larger, is made smaller; None leaves it to
            `image_input`.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        shapes: Sequence[tuple[int, int]],
        *,
        keep_pixels: bool = False,
        image_input: ImageInput = ImageInput(),  # noqa: B008 - frozen
        exif: Exif = "apply",
        shrinks: Sequence[Shrink] | None = None,
    ) -> None:
        self.pictures, self.shapes, self.keep_pixels = pictures, shapes, keep_pixels
        self.image_input = image_input
        self.exif: Exif = exif
        self.shrinks = shrinks or [image_input.shrink] * len(pictures)
        self._video = VideoReader()

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Photograph:
        picture, shape = self.pictures[index], self.shapes[index]
        try:
            pixels = (
                read_image(picture.path, self.exif)
                if picture.frame is None
                else self._video.read(picture.path, picture.frame)
            )
        except (DataError, MemoryError, cv2.error) as error:
            return Photograph(
                image=torch.zeros(3, *shape),
                size=(0, 0),
                pixels=NO_PIXELS,
                index=index,
                error=str(error) or f"{picture.path} does not fit into memory",
            )
        image = normalise(
            resize_image(pixels, shape, self.shrinks[index]), self.image_input
        )
        return Photograph(
            image=image,
            size=(pixels.shape[0], pixels.shape[1]),
            pixels=pixels if self.keep_pixels else NO_PIXELS,
            index=index,
            error="",
        )


class ShapeBatches(Sampler[list[int]]):
    """Batches of pictures whose inputs have one shape, this process's share of them.

    Args:
        shapes: Input (rows, cols) of each picture.
        batch_size: At most; fewer where pictures are larger than `pixels`, or where
            some processes would have no picture.
        pixels: Budget of input pixels in a batch.
        replicas: Number of processes.
        rank: This one.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, int]],
        batch_size: int,
        pixels: int,
        replicas: int,
        rank: int,
    ) -> None:
        batch_size = min(batch_size, -(-len(shapes) // replicas))
        groups: dict[tuple[int, int], list[int]] = {}
        for index, shape in enumerate(shapes):
            groups.setdefault(shape, []).append(index)
        batches: list[list[int]] = []
        for shape, indices in groups.items():
            fit = max(min(batch_size, pixels // math.prod(shape)), 1)
            batches += [indices[i : i + fit] for i in range(0, len(indices), fit)]
        # In the order of the pictures, so that the first results come first.
        self.batches = sorted(batches)[rank::replicas]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)
