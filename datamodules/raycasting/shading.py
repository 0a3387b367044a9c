"""From ray-cast hits to the picture that a camera would take."""

import numpy as np
from numpy.typing import NDArray

from datamodules.raycasting.raycast import (
    Floats,
    Hits,
    Ints,
    Paint,
    Scene,
    cast,
    occluded,
)

AMBIENT = 0.35
FOG_M = 250.0
"""Distance at which outdoor air has taken 63 % of a colour."""


def shade(scene: Scene, origin: Floats, rays: Floats) -> tuple[Floats, Hits]:
    """Colour of every ray: paint, diffuse light with cast shadows, and haze outdoors.

    Args:
        scene: The scene.
        origin: (3,) camera position, metres.
        rays: (N, 3) from `camera_rays`.

    Returns:
        Linear RGB (N, 3), and the hits themselves.
    """
    hits = cast(scene, origin, rays)
    seen = np.isfinite(hits.distance)
    distance = hits.distance[seen]
    point = origin + distance[:, None] * rays[seen]
    # How many metres one pixel covers: finer patterns than that fade to their mean.
    footprint = distance * np.abs(rays[1] - rays[0]).max()
    colour = _painted(scene.paint, hits.surface[seen], hits.uv[seen], footprint)
    colour *= _lit(scene, point, hits.normal[seen])[:, None]
    if scene.sun:
        clear = np.exp(-distance / FOG_M)[:, None]
        colour = colour * clear + scene.sky * (1 - clear)
    rgb = np.empty((len(rays), 3), np.float32)
    rgb[~seen] = scene.sky * (0.8 + 0.4 * np.clip(rays[~seen, 2:], 0, 1))
    rgb[seen] = colour
    return rgb, hits


def photograph(
    rgb: Floats, exposure: float, noise: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Expose, add shot and read noise, encode with gamma 2.2; uint8 like `rgb`.

    Args:
        rgb: Linear light.
        exposure: Factor on it.
        noise: Standard deviation at full scale, 0.02 is a good small camera.
        rng: Where the noise comes from.
    """
    signal = np.clip(rgb * exposure, 0, None)
    grain = rng.standard_normal(rgb.shape, dtype=np.float32)
    signal = signal + noise * np.sqrt(signal * 0.5 + 0.05) * grain
    encoded = np.clip(signal, 0, 1) ** np.float32(1 / 2.2)
    picture: NDArray[np.uint8] = (encoded * 255 + 0.5).astype(np.uint8)
    return picture


def _painted(paint: Paint, surface: Ints, uv: Floats, footprint_m: Floats) -> Floats:
    period = paint.period_m[surface]
    cell = uv / period[:, None]
    whole = np.floor(cell).astype(np.int64)
    part = cell - whole
    u, v = whole[:, 0], whole[:, 1]
    fu, fv = part[:, 0], part[:, 1]
    speckle = _hash(u, v, surface)
    mix = np.select(
        [paint.pattern[surface] == i for i in range(1, 6)],
        [
            (u + v) % 2,
            u % 2,
            (fu < 0.07) | (fv < 0.07),
            (np.abs(fu - 0.5) < 0.25) & (np.abs(fv - 0.55) < 0.28),
            speckle,
        ],
        default=0,
    ).astype(np.float32)
    sharp = np.clip(1.5 - footprint_m / period, 0, 1)
    mix = 0.5 + (mix - 0.5) * sharp
    mix[paint.pattern[surface] == 0] = 0
    mix = mix[:, None]
    colour = paint.first[surface] * (1 - mix) + paint.second[surface] * mix
    shaded: Floats = colour * (1 + 0.16 * (speckle - 0.5) * sharp)[:, None]
    return shaded


def _lit(scene: Scene, point: Floats, normal: Floats) -> Floats:
    start = point + normal * np.float32(0.02)
    if scene.sun:
        towards = np.broadcast_to(scene.light, point.shape)
        falloff: Floats | float = 1.0
        reach = np.inf
    else:
        towards = scene.light - start
        falloff = 1.6 / (1 + 0.12 * (towards**2).sum(-1))
        reach = 1.0
    length = np.sqrt((towards**2).sum(-1))
    facing = np.clip((towards * normal).sum(-1) / length, 0, 1)
    lamp = facing > 0
    facing[lamp] *= 1 - occluded(scene, start[lamp], towards[lamp], reach)
    lit: Floats = (AMBIENT + (1 - AMBIENT) * facing * falloff).astype(np.float32)
    return lit


def _hash(u: Ints, v: Ints, surface: Ints) -> Floats:
    """A fixed pseudo-random number in 0..1 for each texture cell."""
    mixed = (u * 73856093) ^ (v * 19349663) ^ (surface * 83492791)
    mixed = (mixed ^ (mixed >> 13)) * 1274126177
    low: Floats = ((mixed >> 8) & 0xFFFF).astype(np.float32)
    return low / np.float32(65535)
