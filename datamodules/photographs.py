"""Photographs and video frames to predict depth for, without any truth."""

import glob
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from datamodules.batch import DataError
from datamodules.files.depth_files import IMAGE_SUFFIXES, read_image
from datamodules.transforms import PATCH_PX, lower_bound, normalise, resize_image

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
ORIENTATION, FOCAL_35MM, EXIF_IFD = 0x0112, 0xA405, 0x8769
FILM_WIDTH_MM = 36.0
NO_PIXELS = np.empty((0, 0, 3), np.uint8)
LONGEST = 4
"""A frame's longer side becomes at most this many times the shorter bound."""

InputSize = tuple[int, int] | int | Literal["native"]
"""(rows, cols): that size whatever the picture's shape; a number: the picture's own
shape, both sides at least that; native: the picture's own size."""


@dataclass(frozen=True)
class Picture:
    """One picture to predict."""

    path: Path
    name: str
    """Under which its outputs are written, relative to the output folder."""
    frame: int | None = None
    """Number of a video's frame, from 0; None for a photograph."""


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


def find_images(given: Sequence[str]) -> list[Picture]:
    """Every picture that is named, in order.

    Args:
        given: Image and video files, folders (looked through recursively), patterns
            with `*`, or `.txt` lists of such, relative to the list's own folder.

    Raises:
        DataError: If one does not exist, nothing was found, or two pictures would be
            written to one name.
    """
    found: list[Picture] = []
    for start in given:
        path = Path(start)
        if path.is_dir():
            inside = sorted(path.rglob("*"))
            for file in inside:
                if file.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES):
                    found += _pictures(file, file.relative_to(path).as_posix())
        elif path.suffix.lower() == ".txt" and path.is_file():
            lines = [line.strip() for line in path.read_text().splitlines()]
            found += find_images([str(path.parent / line) for line in lines if line])
        elif path.is_file() or path.is_symlink():
            found += _pictures(path, path.name)
        elif glob.has_magic(start):
            matches = sorted(map(Path, glob.iglob(start, recursive=True)))  # noqa: PTH207
            found += find_images([str(match) for match in matches]) if matches else []
        else:
            raise DataError(
                f"{start} does not exist; give images, videos, folders, a pattern or "
                "a .txt list"
            )
    if not found:
        raise DataError(
            f"no images in {', '.join(given)}; files must end in "
            f"{', '.join((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))}"
        )
    owners: dict[str, Path] = {}
    for picture in found:
        first = owners.setdefault(picture.name, picture.path)
        if first != picture.path:
            raise DataError(
                f"{first} and {picture.path} would both be written as {picture.name}; "
                "give their common folder, or run twice with different outputs"
            )
    unique = {picture.name: picture for picture in found}
    return list(unique.values())


def _pictures(path: Path, name: str) -> list[Picture]:
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        return [Picture(path, name)]
    video = cv2.VideoCapture(str(path))
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
    video.release()
    if count < 1:
        return [Picture(path, f"{name}/000000", 0)]  # reading it will say what is wrong
    return [Picture(path, f"{name}/{i:06d}", i) for i in range(count)]


def header(path: Path) -> tuple[tuple[int, int] | None, float | None]:
    """An image file's upright size (rows, cols) and focal length, without decoding it.

    Returns:
        The size, None if the file cannot be read; the focal length in pixels from
        EXIF's 35 mm equivalent, None if it is not there.
    """
    try:
        with Image.open(path) as image:
            cols, rows = image.size
            exif = image.getexif()
            # Of film 36 mm wide, along the longer side.
            film_mm = exif.get_ifd(EXIF_IFD).get(FOCAL_35MM)
            longest = max(rows, cols)
            focal_px = float(film_mm) / FILM_WIDTH_MM * longest if film_mm else None
            turned = exif.get(ORIENTATION, 1) in (5, 6, 7, 8)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return None, None
    except Image.DecompressionBombError:
        return None, None
    return ((cols, rows) if turned else (rows, cols)), focal_px


def input_size(size: tuple[int, int], wanted: InputSize) -> tuple[int, int]:
    """The network's input (rows, cols) for a picture of this size."""
    if isinstance(wanted, tuple):
        return wanted
    rows, cols = size
    if wanted == "native":
        return (
            max(round(rows / PATCH_PX), 1) * PATCH_PX,
            max(round(cols / PATCH_PX), 1) * PATCH_PX,
        )
    found = lower_bound(size, (wanted, wanted))
    if max(found) > LONGEST * wanted:
        # A strip would become larger than any memory.
        shrink = LONGEST * wanted / max(rows, cols)
        found = (
            max(round(rows * shrink / PATCH_PX), 1) * PATCH_PX,
            max(round(cols * shrink / PATCH_PX), 1) * PATCH_PX,
        )
    return found


class Photographs(Dataset[Photograph]):
    """Pictures resized to the network's input; unreadable ones carry their error.

    Args:
        pictures: From `find_images`.
        shapes: Network input (rows, cols) of each.
        keep_pixels: Whether the picture itself is needed later: it is large.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        shapes: Sequence[tuple[int, int]],
        *,
        keep_pixels: bool = False,
    ) -> None:
        self.pictures, self.shapes, self.keep_pixels = pictures, shapes, keep_pixels
        self._video: tuple[Path, cv2.VideoCapture, int] | None = None

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Photograph:
        picture, shape = self.pictures[index], self.shapes[index]
        try:
            pixels = (
                read_image(picture.path)
                if picture.frame is None
                else self._read_frame(picture.path, picture.frame)
            )
        except (DataError, MemoryError, cv2.error) as error:
            return Photograph(
                image=torch.zeros(3, *shape),
                size=(0, 0),
                pixels=NO_PIXELS,
                index=index,
                error=str(error) or f"{picture.path} does not fit into memory",
            )
        image = normalise(resize_image(pixels, shape))
        return Photograph(
            image=image,
            size=(pixels.shape[0], pixels.shape[1]),
            pixels=pixels if self.keep_pixels else NO_PIXELS,
            index=index,
            error="",
        )

    def _read_frame(self, path: Path, number: int) -> NDArray[np.uint8]:
        """A video's frame; going on from the last one is fast, jumping is not."""
        if self._video is None or self._video[0] != path:
            self._video = (path, cv2.VideoCapture(str(path)), 0)
        _, video, following = self._video
        if number != following:
            video.set(cv2.CAP_PROP_POS_FRAMES, number)
        done, pixels = video.read()
        if not done:
            raise DataError(f"{path} has no frame {number} that can be decoded")
        self._video = (path, video, number + 1)
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


class ShapeBatches(Sampler[list[int]]):
    """Batches of pictures whose inputs have one shape, this process's share of them.

    Args:
        shapes: Input (rows, cols) of each picture.
        batch_size: At most; fewer where pictures are larger than `pixels`.
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
