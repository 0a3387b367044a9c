"""Pictures of one shape, and what is computed of them."""

from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datamodules.photographs import Photograph


class PhotographBatch(TypedDict):
    """`Photograph`s whose inputs have one shape."""

    image: Tensor
    size: list[tuple[int, int]]
    pixels: list[NDArray[np.uint8]]
    index: list[int]
    error: list[str]


def collate(items: list[Photograph]) -> PhotographBatch:
    """Stack the inputs and keep the rest apart."""
    return PhotographBatch(
        image=torch.stack([item["image"] for item in items]),
        size=[item["size"] for item in items],
        pixels=[item["pixels"] for item in items],
        index=[item["index"] for item in items],
        error=[item["error"] for item in items],
    )


class Step(nn.Module):
    """What is computed of a batch."""

    def step(self, batch: PhotographBatch) -> Any:
        """The outcome of one, whose `image` is where the parameters are."""
        raise NotImplementedError
