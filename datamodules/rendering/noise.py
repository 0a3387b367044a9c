"""Noise with the spectra of natural surfaces, looked up without aliasing."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

TILES = 24
SIDE = 256
"""Pixels of a tile, which repeats in both directions."""
LEVELS = SIDE.bit_length()
STARTS = np.cumsum([0, *((SIDE >> level) ** 2 for level in range(LEVELS - 1))])
"""Where each level of a tile's pyramid begins."""


@cache
def tiles() -> Floats:
    """(TILES, pixels of all levels): values about 0.5, deviating by 0.2.

    Amplitudes fall as 1/f^a, as those of natural images do (Field, Relations between
    the statistics of natural images, 1987: a about 1), from fine grain (a = 1) to
    clouds (2.4). A level's pixels are the means of four of the one before.
    """
    rng = np.random.default_rng(7)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE)))
    frequency[0, 0] = 1
    made = []
    for slope in np.linspace(1.0, 2.4, TILES):
        spectrum = np.fft.fft2(rng.standard_normal((SIDE, SIDE))) / frequency**slope
        spectrum[0, 0] = 0
        picture = np.fft.ifft2(spectrum).real
        level = np.clip(0.5 + 0.2 * picture / picture.std(), 0, 1)
        levels = [level]
        while len(level) > 1:
            level = level.reshape(len(level) // 2, 2, -1, 2).mean((1, 3))
            levels.append(level)
        made.append(np.concatenate([part.ravel() for part in levels]))
    return np.stack(made).astype(np.float32)


def sample(tile: NDArray[np.integer], uv: Floats, footprint: Floats) -> Floats:
    """(N,) values at places, averaged over about what a pixel covers.

    Args:
        tile: (N,) which tile.
        uv: (N, 2) in units of a tile's side.
        footprint: (N,) what a pixel covers, in the same unit.
    """
    level = np.clip(np.round(np.log2(np.maximum(footprint * SIDE, 1))), 0, LEVELS - 1)
    level = level.astype(np.int64)
    side = np.right_shift(SIDE, level)
    place = (uv - np.floor(uv)) * side[:, None] - 0.5
    low = np.floor(place).astype(np.int64)
    part = (place - low).astype(np.float32)
    last = side - 1
    u0, v0 = low[:, 0] & last, low[:, 1] & last
    u1, v1 = (low[:, 0] + 1) & last, (low[:, 1] + 1) & last
    flat, row = tiles().reshape(-1), tile.astype(np.int64) * int(STARTS[-1] + 1)
    row = row + STARTS[level]
    fu, fv = part[:, 0], part[:, 1]
    upper = flat[row + v0 * side + u0] * (1 - fu) + flat[row + v0 * side + u1] * fu
    lower = flat[row + v1 * side + u0] * (1 - fu) + flat[row + v1 * side + u1] * fu
    value: Floats = upper * (1 - fv) + lower * fv
    return value


def hashed(*numbers: NDArray[np.integer]) -> Floats:
    """A fixed number in 0..1 for each row of whole numbers."""
    mixed = np.zeros(len(numbers[0]), np.int64)
    for prime, number in zip((73856093, 19349663, 83492791), numbers, strict=False):
        mixed ^= number.astype(np.int64) * prime
    mixed = (mixed ^ (mixed >> 13)) * 1274126177
    low: Floats = ((mixed >> 8) & 0xFFFF).astype(np.float32)
    return low / np.float32(65535)
