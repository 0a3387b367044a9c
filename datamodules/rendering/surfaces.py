"""Surfaces that everything is made of: wood, cloth, leaves, road."""

from dataclasses import replace

import numpy as np

from datamodules.rendering.materials import (
    Colour,
    Material,
    Pattern,
    random_material,
)

Rng = np.random.Generator
PLAIN = (Pattern.NONE,)
CLOTH = (Pattern.NONE, Pattern.NONE, Pattern.STRIPES, Pattern.CHECKER, Pattern.WEAVE)
PRINTED = (Pattern.NONE, Pattern.STRIPES, Pattern.POSTER, Pattern.CHECKER)


def wood(rng: Rng) -> Material:
    """Grain along one direction, from pale pine to nearly black."""
    value = np.exp(rng.uniform(np.log(0.04), np.log(0.6)))
    hue = (1, rng.uniform(0.55, 0.9), rng.uniform(0.25, 0.8))
    first, second = _shade(value, hue), _shade(value * rng.uniform(0.4, 0.8), hue)
    made = random_material(rng, patterns=PLAIN)
    return replace(
        made,
        first=first,
        second=second,
        third=second,
        stretch=float(rng.uniform(6, 20)),
        tile_m=float(rng.uniform(0.15, 0.5)),
        gloss=float(rng.uniform(0, 0.4)),
        bump=0.0,
    )


def hard(rng: Rng) -> Material:
    """Wood, paint, plastic or metal."""
    return wood(rng) if rng.uniform() < 0.5 else random_material(rng, patterns=PLAIN)


def green(rng: Rng) -> Material:
    """Leaves: dark to yellowish."""
    value = np.exp(rng.uniform(np.log(0.03), np.log(0.3)))
    # A few are in autumn.
    red = rng.uniform(0.9, 2) if rng.uniform() < 0.2 else rng.uniform(0.3, 0.9)
    hue = (red, 1, rng.uniform(0.1, 0.5))
    first, second = _shade(value, hue), _shade(value / 2, hue)
    made = random_material(rng, patterns=PLAIN)
    return replace(made, first=first, second=second, third=second, gloss=0.05, bump=0.0)


def asphalt(rng: Rng) -> Material:
    """Grey, grained and stained."""
    grey = rng.uniform(0.04, 0.3)
    first = (grey, grey * rng.uniform(0.95, 1.02), grey * rng.uniform(0.9, 1.05))
    return replace(
        random_material(rng, patterns=PLAIN),
        first=first,
        second=(grey * 0.7,) * 3,
        third=(grey * rng.uniform(0.6, 1.5),) * 3,
        gloss=float(rng.choice([0, 0, 0.3])),
        bump=0.1,
    )


def white_paint(rng: Rng) -> Material:
    """As of marks on a road."""
    return replace(
        random_material(rng, patterns=PLAIN, grey=1, low=0.5), contrast=0.4, bump=0.0
    )


def _shade(value: float, hue: tuple[float, float, float]) -> Colour:
    r, g, b = (float(np.clip(value * part, 0.002, 0.95)) for part in hue)
    return r, g, b
