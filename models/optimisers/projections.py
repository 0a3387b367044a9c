"""Which directions a momentum is kept in: never stored, always the same."""

import math
from functools import lru_cache
from hashlib import blake2b
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Projection = Literal["orthonormal", "gaussian"]


class Base(NamedTuple):
    """What all projections of one size and period are cut from."""

    projection: Projection
    seed: int
    period: int
    side: int
    """n: the smaller side of the matrix."""
    rank: int

    def draw(self) -> Tensor:
        """(2 n, rank) float64, of which any n rows are a projection.

        Made on the CPU, so that it is the same on every device.
        """
        generator = torch.Generator().manual_seed(hashed(*self))
        shape = (self.side, self.rank)
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        if self.projection == "orthonormal":
            drawn = torch.linalg.qr(drawn).Q
        else:
            drawn /= math.sqrt(self.rank)
        return drawn.repeat(2, 1)

    def rows_of(self, name: str) -> slice:
        """Where a parameter's projection lies."""
        start = hashed(self.seed, self.period, name) % self.side
        return slice(start, start + self.side)


@lru_cache(maxsize=4096)
def hashed(*parts: object) -> int:
    """63 bits that are the same in every process."""
    text = "/".join(map(str, parts))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
