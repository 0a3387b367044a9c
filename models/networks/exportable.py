"""The network in operations that exporters can leave open in height and width."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from models.networks.encoder import INTERPOLATE_OFFSET, DinoV2Encoder
from models.networks.interface import Network

A = -0.75
"""Keys' kernel as torch's bicubic has it."""


@contextmanager
def open_sizes(network: Network) -> Iterator[None]:
    """A block in which tracing `network` does not fix the size of its input.

    Resampling the position embeddings by a scale factor is frozen by exporters at the
    size that they traced. As two products with matrices made from the grid's numbers it
    is not, and gives the same to float32 rounding. Other encoders are traced as they
    are.
    """
    encoder = network.encoder
    if not isinstance(encoder, DinoV2Encoder):
        yield
        return

    def position_embedding(rows: int, cols: int) -> Tensor:
        table = encoder.pos_embed.float()
        side = math.isqrt(table.shape[1] - 1)
        grid = table[0, 1:].reshape(side, side, -1)
        # The sizes may be symbolic: which rule holds must not be Python's choice. On
        # the grid of pre-training itself the official code does not resample.
        one = torch.ones((), device=table.device)
        same = (one * rows == side) & (one * cols == side)
        offset = torch.where(same, 0.0, INTERPOLATE_OFFSET)
        down = cubic_matrix(rows, side, offset)
        along = cubic_matrix(cols, side, offset)
        patches = torch.einsum("ri,ijd->rjd", down, grid)
        patches = torch.einsum("cj,rjd->rcd", along, patches)
        return torch.cat((table[:, :1], patches.flatten(0, 1)[None]), dim=1)

    encoder.__dict__["position_embedding"] = position_embedding
    try:
        yield
    finally:
        del encoder.__dict__["position_embedding"]


def cubic_matrix(n: int, side: int, offset: Tensor) -> Tensor:
    """(n, side) weights of bicubic resampling from `side` places to n.

    The official rule: scale (n + offset) / side, no antialiasing, edges repeated.
    """
    index = torch.arange(n, device=offset.device, dtype=offset.dtype)
    source = (index + 0.5) * side / (n + offset) - 0.5
    first = source.floor()
    places = torch.arange(side, device=offset.device, dtype=offset.dtype)
    weights = torch.zeros_like(index)[:, None] * places
    for tap in range(-1, 3):
        place = (first + tap).clamp(0, side - 1)
        weight = _kernel(source - (first + tap))
        weights = weights + torch.where(
            place[:, None] == places, weight[:, None], torch.zeros_like(weights)
        )
    return weights


def _kernel(distance: Tensor) -> Tensor:
    d = distance.abs()
    near = (A + 2) * d**3 - (A + 3) * d**2 + 1
    far = A * d**3 - 5 * A * d**2 + 8 * A * d - 4 * A
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))
