"""What surfaces look like: three colours, noise, and a pattern of cells.

A material is laid on by the two coordinates across a surface, in metres of the thing's
own axes, so that a moved thing keeps its grain.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from datamodules.rendering.noise import TILES, hashed, sample

Floats = NDArray[np.floating]
Rng = np.random.Generator
Colour = tuple[float, float, float]


class Pattern(IntEnum):
    """How cells are laid out; a cell is `period_m` wide."""

    NONE = 0
    CHECKER = 1
    STRIPES = 2
    TILES = 3
    """Square ones with joints."""
    BRICKS = 4
    """Half as high as wide, every other row moved on."""
    PLANKS = 5
    """Eight times as long as wide, each of its own shade."""
    WINDOWS = 6
    """Panes in a wall, some lit."""
    WEAVE = 7
    POSTER = 8
    """Patches with hard edges."""
    RIBS = 9
    """Rounded, as of curtains, shutters and corrugated sheets."""


@dataclass(frozen=True)
class Material:
    """One row of the table that a world is painted from; colours are linear light."""

    first: Colour
    second: Colour
    third: Colour
    """Of joints, panes and large stains."""
    pattern: Pattern = Pattern.NONE
    period_m: float = 0.5
    tile: int = 12
    """Of noise; higher ones are smoother."""
    tile_m: float = 1.0
    """Metres that one tile of noise covers."""
    stretch: float = 1.0
    """Grain is so many times as long as wide."""
    contrast: float = 0.5
    """Of the noise between first and second."""
    stains: float = 0.2
    """Of large patches of the third colour."""
    bump: float = 0.0
    """How much noise tilts the surface."""
    gloss: float = 0.0
    emission: float = 0.0
    """Light that it sends out itself; 1 is as bright as a lit white wall."""


(PATTERN, PERIOD, TILE, TILE_M, STRETCH, CONTRAST, STAINS, BUMP, GLOSS, EMISSION) = (
    range(9, 19)
)


def table(materials: list[Material]) -> Floats:
    """(M, 19), a row a material."""
    rows = [
        (
            *(*m.first, *m.second, *m.third, m.pattern, m.period_m, m.tile, m.tile_m),
            *(m.stretch, m.contrast, m.stains, m.bump, m.gloss, m.emission),
        )
        for m in materials
    ]
    return np.array(rows, np.float32)


def tint(
    rng: Rng, *, grey: float | None = None, low: float = 0.03, high: float = 0.85
) -> Colour:
    """A random colour; `grey` of 1 has no hue, None is one of the two extremes."""
    if grey is None:
        grey = rng.uniform(0.8, 1) if rng.uniform() < 0.5 else rng.uniform(0, 0.5)
    value = np.exp(rng.uniform(np.log(low), np.log(high)))
    hue = rng.uniform(size=3)
    hue = hue / hue.max()
    colour = value * (grey + (1 - grey) * hue)
    return float(colour[0]), float(colour[1]), float(colour[2])


def near(colour: Colour, rng: Rng, spread: float = 0.35) -> Colour:
    """A colour like another: brighter or darker, and a little another hue."""
    factor = np.exp(rng.normal(0, spread)) * np.exp(rng.normal(0, spread / 4, 3))
    r, g, b = np.clip(np.array(colour) * factor, 0.005, 0.95)
    return float(r), float(g), float(b)


def random_material(
    rng: Rng,
    *,
    patterns: tuple[Pattern, ...] = tuple(Pattern),
    period_m: tuple[float, float] = (0.03, 0.6),
    grey: float | None = None,
    low: float = 0.03,
    high: float = 0.85,
) -> Material:
    """Any surface of the given kinds."""
    first = tint(rng, grey=grey, low=low, high=high)
    alike = rng.uniform() < 0.7
    second = near(first, rng) if alike else tint(rng, grey=grey, low=low, high=high)
    third = near(first, rng, 0.6) if alike else tint(rng, grey=grey, low=low, high=high)
    return Material(
        first,
        second,
        third,
        patterns[int(rng.integers(len(patterns)))],
        float(np.exp(rng.uniform(*np.log(period_m)))),
        int(rng.integers(TILES)),
        float(np.exp(rng.uniform(np.log(0.2), np.log(3)))),
        float(rng.choice([1, 1, 1, 3, 10])),
        float(rng.uniform(0, 1) ** 2),
        float(rng.uniform(0, 0.6) ** 2),
        float(rng.choice([0, rng.uniform(0, 0.6)])),
        float(rng.choice([0, 0, rng.uniform(0, 0.6)])),
    )


def across(local: Floats, normal: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """Coordinates (N, 2) across a surface, and the axis (N,) that it faces most."""
    axis = np.abs(normal).argmax(axis=1)
    rows = np.arange(len(axis))
    u = local[rows, np.where(axis == 0, 1, 0)]
    v = local[rows, np.where(axis == 2, 1, 2)]
    return np.stack((u, v), -1), axis


def painted(
    rows: Floats, which: NDArray[np.integer], uv: Floats, footprint_m: Floats
) -> tuple[Floats, Floats]:
    """Colour (N, 3) and the slopes (N, 2) by which the surface is tilted.

    Args:
        rows: (N, 19) of `table`, one for each place.
        which: (N,) a number of the thing, so that two alike are not the same.
        uv: (N, 2) metres across the surface.
        footprint_m: (N,) metres that a pixel covers.
    """
    tile, scale = rows[:, TILE].astype(np.int64), rows[:, TILE_M]
    moved = uv + hashed(which)[:, None] * 7
    grain = moved / scale[:, None]
    grain[:, 1] /= rows[:, STRETCH]
    fine = footprint_m / scale
    mix = sample(tile, grain, fine)
    slopes = np.zeros_like(uv)
    bumpy = rows[:, BUMP] > 0
    if bumpy.any():
        own, step = tile[bumpy], np.maximum(fine[bumpy], 1 / 128)
        for axis in (0, 1):
            beside = grain[bumpy]
            beside[:, axis] += step
            rise = sample(own, beside, fine[bumpy]) - mix[bumpy]
            slopes[bumpy, axis] = 4 * rise * rows[bumpy, BUMP]
    stain = sample((tile * 5 + 17) % TILES // 2 + TILES // 2, moved / 3.1, fine / 3)
    amount = np.clip(0.5 + (mix - 0.5) * 3 * rows[:, CONTRAST], 0, 1)[:, None]
    colour = rows[:, 0:3] * (1 - amount) + rows[:, 3:6] * amount
    stained = (np.clip(stain * 3 - 1.2, 0, 1) * rows[:, STAINS])[:, None]
    colour = colour * (1 - stained) + rows[:, 6:9] * stained
    kinds = rows[:, PATTERN].astype(np.int64)
    for kind in np.unique(kinds):
        if kind == Pattern.NONE:
            continue
        on = kinds == kind
        colour[on] = _patterned(
            Pattern(kind), rows[on], which[on], uv[on], footprint_m[on], colour[on]
        )
    return colour, slopes


def _patterned(
    kind: Pattern,
    rows: Floats,
    which: NDArray[np.integer],
    uv: Floats,
    footprint_m: Floats,
    colour: Floats,
) -> Floats:
    """`colour` with cells of a pattern over it, faded where a pixel covers several."""
    period = rows[:, PERIOD].copy()
    cell = uv / period[:, None]
    if kind == Pattern.BRICKS:
        cell[:, 1] *= 2
        cell[:, 0] += 0.5 * (np.floor(cell[:, 1]) % 2)
    elif kind == Pattern.PLANKS:
        cell[:, 1] /= 8
        cell[:, 1] += hashed(np.floor(cell[:, 0]).astype(np.int64))
    elif kind == Pattern.WEAVE:
        cell *= 8
        period /= 8
    whole = np.floor(cell).astype(np.int64)
    part = (cell - whole).astype(np.float32)
    own = hashed(whole[:, 0], whole[:, 1], which)
    sharp = np.clip(1.6 - footprint_m / period * 1.4, 0, 1)
    # A pixel's footprint softens edges, as a lens would.
    soft = np.maximum(footprint_m / period, 0.02)
    from_edge = np.minimum(part, 1 - part)

    def inside(margin: float, axis: int) -> Floats:
        found: Floats = np.clip((from_edge[:, axis] - margin) / soft + 0.5, 0, 1)
        return found

    second, third = rows[:, 3:6], rows[:, 6:9]
    mean: float
    mix: Floats
    target: Floats
    if kind in (Pattern.CHECKER, Pattern.STRIPES):
        odd = whole[:, 0] + (whole[:, 1] if kind == Pattern.CHECKER else 0)
        mean, mix, target = 0.5, (odd % 2).astype(np.float32), third
    elif kind in (Pattern.TILES, Pattern.BRICKS, Pattern.PLANKS):
        joint = 0.03 if kind != Pattern.BRICKS else 0.06
        high = joint * (2 if kind == Pattern.BRICKS else 1)
        high = joint / 8 if kind == Pattern.PLANKS else high
        mean, mix, target = 0.08, 1 - inside(joint, 0) * inside(high, 1), third
        colour = colour * (0.75 + 0.5 * (0.5 + (own - 0.5) * sharp))[:, None]
    elif kind == Pattern.WINDOWS:
        lit = (own > 0.7)[:, None]
        mean, mix = 0.35, inside(0.2, 0) * inside(0.16, 1)
        shade = np.where(lit, 1.8, 0.35 + 0.4 * own[:, None])
        target = (third * shade).astype(np.float32)
    elif kind == Pattern.POSTER:
        mean, mix = 0.5, (own > 0.5).astype(np.float32)
        target = np.where((own > 0.75)[:, None], third, second)
    elif kind == Pattern.RIBS:
        wave = 0.5 + 0.5 * np.sin(2 * np.pi * cell[:, 0])
        mean, mix, target = 0.5, wave.astype(np.float32), colour * np.float32(0.45)
    else:  # WEAVE
        mean, mix = 0.5, (own * 0.5 + 0.25 * ((whole[:, 0] + whole[:, 1]) % 2))
        target = second
    mix = (mean + (mix - mean) * sharp)[:, None]
    shown: Floats = (colour * (1 - mix) + target * mix).astype(np.float32)
    return shown
