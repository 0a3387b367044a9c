"""Photographs to predict depth for, without any truth."""

from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.batch import DataError
from datamodules.depth_files import IMAGE_SUFFIXES, read_image
from datamodules.transforms import normalise, resize_image


class Photograph(TypedDict):
    """One photograph, ready for the network."""

    image: Tensor
    """(3, h, w) float32, ImageNet-normalised; zeros if it could not be read."""
    size: tuple[int, int]
    """The photograph's own (rows, cols)."""
    path: str
    """Relative to the folder it was found in."""
    error: str
    """Why it could not be read; empty if it could."""


def find_images(given: list[Path]) -> list[tuple[Path, Path]]:
    """Every image file below the given folders, and the given files themselves.

    Returns:
        (path, path relative to the folder that was given), in order.

    Raises:
        DataError: If one does not exist or nothing was found.
    """
    found: list[tuple[Path, Path]] = []
    for start in given:
        if start.is_file():
            found.append((start, Path(start.name)))
        elif start.is_dir():
            found += [
                (path, path.relative_to(start))
                for path in sorted(start.rglob("*"))
                if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
            ]
        else:
            raise DataError(f"{start} does not exist; give image files or folders")
    if not found:
        raise DataError(
            f"no images in {', '.join(map(str, given))}; files must end in "
            f"{', '.join(IMAGE_SUFFIXES)}"
        )
    return found


class Photographs(Dataset[Photograph]):
    """Photographs resized to the network's input; unreadable ones carry their error.

    Args:
        files: From `find_images`.
        size: Network input (rows, cols).
    """

    def __init__(self, files: list[tuple[Path, Path]], size: tuple[int, int]) -> None:
        self.files, self.size = files, size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Photograph:
        path, relative = self.files[index]
        try:
            pixels = read_image(path)
        except DataError as error:
            return Photograph(
                image=torch.zeros(3, *self.size),
                size=(0, 0),
                path=str(relative),
                error=str(error),
            )
        return Photograph(
            image=normalise(resize_image(pixels, self.size)),
            size=(pixels.shape[0], pixels.shape[1]),
            path=str(relative),
            error="",
        )
