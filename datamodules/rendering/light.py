"""Light of lamps, with soft shadows, of a sky, and from all around."""

import numpy as np
from numpy.typing import NDArray

from datamodules.rendering.materials import EMISSION, GLOSS, across, painted
from datamodules.rendering.noise import sample
from datamodules.rendering.world import Lamp, Traced, World, dot

Floats = NDArray[np.floating]
Rng = np.random.Generator

OFF_M = 2e-3
"""Metres off a surface that rays from it start at."""
AROUND_M = 0.8
"""How far away a thing still shades what is beside it."""
FAR_M = 400.0
REACH_PX = 2
"""Pixels to each side over which the grain of random rays is evened out."""


def render(
    world: World,
    traced: Traced,
    origin: Floats,
    rays: Floats,
    size: tuple[int, int],
    rng: Rng,
) -> tuple[Floats, Floats]:
    """Linear light and depth along rays.

    Args:
        world: What there is.
        traced: The same, to cast rays into.
        origin: (3,) metres.
        rays: (N, 3) whose length is one metre along the camera's axis.
        size: (rows, cols) of the picture that the rays make, row by row.
        rng: Of soft shadows.

    Returns:
        (N, 3), and (N,) metres along the axis, 0 where there is only sky.
    """
    seen = traced.nearest(origin, rays)
    length = np.sqrt(dot(rays, rays))
    towards = rays / length[:, None]
    light = sky_light(world, towards)
    depth = np.zeros(len(rays), np.float32)
    depth[seen.hit] = seen.distance
    if not seen.hit.any():
        return light, depth
    rows = traced.rows[seen.thing]
    uv, axis = across(seen.local, seen.normal)
    away = seen.distance * length[seen.hit]
    pixel = np.abs(rays[1] - rays[0]).max()
    facing = np.maximum(np.abs(dot(seen.normal, towards[seen.hit])), 0.15)
    footprint = (seen.distance * pixel / np.sqrt(facing)).astype(np.float32)
    colour, slopes = painted(rows, seen.thing, uv, footprint)
    normal = _tilted(seen.normal, axis, slopes)
    point = (origin + seen.distance[:, None] * rays[seen.hit]).astype(np.float32)
    start = point + OFF_M * (1 + 0.2 * away[:, None]) * seen.normal
    received = _from_around(world, traced, start, seen.normal, normal, rng)
    shine = np.zeros_like(colour)
    half = np.zeros_like(colour)
    for lamp in world.lamps:
        shown, direction = _from_lamp(traced, lamp, start, seen.normal, normal, rng)
        received += shown
        np.subtract(direction, towards[seen.hit], out=half)
        along = dot(half, normal) / np.sqrt(np.maximum(dot(half, half), 1e-12))
        sharp = np.clip(along, 0, 1) ** 40
        shine += shown * (sharp * rows[:, GLOSS])[:, None]
    received = _smoothed(received, seen.hit, seen.normal, seen.distance, size)
    onto = dot(towards[seen.hit], normal)[:, None]
    mirrored = towards[seen.hit] - 2 * onto * normal
    edge = (1 - facing) ** 4 * 0.8 + 0.06
    sky = sky_light(world, mirrored) * np.clip(mirrored[:, 2:] + 0.3, 0, 1)
    shine += sky * (edge * rows[:, GLOSS])[:, None]
    shaded = colour * (received + rows[:, EMISSION, None]) + shine
    if np.isfinite(world.haze_m):
        clear = np.exp(-away / world.haze_m)[:, None]
        flat = towards[seen.hit].copy()
        flat[:, 2] = np.abs(flat[:, 2])
        shaded = shaded * clear + sky_light(world, flat) * (1 - clear)
    light[seen.hit] = shaded
    return light.astype(np.float32), depth


def sky_light(world: World, towards: Floats) -> Floats:
    """(N, 3) of a sky that is paler at the horizon, with clouds."""
    up = np.clip(towards[:, 2:], 0, 1)
    sky = np.array(world.sky)
    pale = 0.4 * sky + 0.6 * sky.max()
    light = pale + (sky - pale) * np.sqrt(up)
    if world.clouds > 0:
        plane = towards[:, :2] / (0.12 + up)
        tile = np.full(len(towards), 20)
        fine = np.full(len(towards), 0.01, np.float32)
        cover = sample(tile, (plane * 0.12).astype(np.float32), fine)
        cover = np.clip((cover - 0.65 + 0.4 * world.clouds) * 4, 0, 1)[:, None]
        light = light * (1 - cover) + sky.max() * 1.25 * cover
    shown: Floats = light.astype(np.float32)
    return shown


def _smoothed(
    received: Floats,
    hit: NDArray[np.bool_],
    normal: Floats,
    distance: Floats,
    size: tuple[int, int],
) -> Floats:
    """Light without the grain of random rays: means over neighbours of one surface."""
    rows, cols = size
    edge = ((0, 0), (REACH_PX, REACH_PX), (REACH_PX, REACH_PX))
    planes = np.zeros((7, len(hit)), np.float32)
    planes[:, hit] = np.concatenate([received.T, normal.T, distance[None]])
    wide = np.pad(planes.reshape(7, rows, cols), edge)
    here = wide[:, REACH_PX : REACH_PX + rows, REACH_PX : REACH_PX + cols]
    near = 0.04 * here[6]
    total, weight = np.zeros((3, rows, cols), np.float32), np.zeros(size, np.float32)
    for down, right in np.ndindex(2 * REACH_PX + 1, 2 * REACH_PX + 1):
        beside = wide[:, down : down + rows, right : right + cols]
        alike = np.einsum("kij,kij->ij", here[3:6], beside[3:6]) > 0.9
        alike &= np.abs(beside[6] - here[6]) < near
        total += beside[:3] * alike
        weight += alike
    mean = total / np.maximum(weight, 1)
    smooth: Floats = mean.reshape(3, -1).T[hit]
    return smooth


def _tilted(normal: Floats, axis: NDArray[np.intp], slopes: Floats) -> Floats:
    """Normals turned by a surface's own slopes."""
    rows = np.arange(len(axis))
    tilted = normal.copy()
    tilted[rows, np.where(axis == 0, 1, 0)] -= slopes[:, 0]
    tilted[rows, np.where(axis == 2, 1, 2)] -= slopes[:, 1]
    turned: Floats = tilted / np.sqrt(dot(tilted, tilted))[:, None]
    return turned


def _from_around(
    world: World,
    traced: Traced,
    start: Floats,
    flat: Floats,
    normal: Floats,
    rng: Rng,
    tries: int = 2,
) -> Floats:
    """Ambient light, less in corners: the part of short random rays that get away."""
    free = np.zeros(len(start), np.float32)
    for _ in range(tries):
        rays = rng.standard_normal(start.shape, np.float32)
        rays /= np.sqrt(dot(rays, rays))[:, None]
        rays += 1.01 * flat
        rays *= (AROUND_M / np.sqrt(dot(rays, rays)))[:, None]
        free += ~traced.blocked(start, rays)
    above = 0.75 + 0.25 * normal[:, 2:]
    ambient = np.array(world.ambient, np.float32)
    around: Floats = ambient * above * (0.25 + 0.75 * free[:, None] / tries)
    return around


def _from_lamp(
    traced: Traced, lamp: Lamp, start: Floats, flat: Floats, normal: Floats, rng: Rng
) -> tuple[Floats, Floats]:
    """(N, 3) light of a lamp, and (N, 3) unit directions towards it."""
    place = np.array(lamp.place, np.float32)
    shift = rng.standard_normal(start.shape, np.float32) * np.float32(lamp.size_m / 2)
    rays = (place + shift) * FAR_M if lamp.sun else place + shift - start
    squared = dot(rays, rays)
    direction = rays / np.sqrt(squared)[:, None]
    facing = np.clip(dot(direction, normal), 0, 1)
    facing *= dot(direction, flat) > 0
    lit = np.flatnonzero(facing)
    facing[lit] *= ~traced.blocked(start[lit], rays[lit])
    # A lamp is as bright as its colour at 1.5 metres.
    near = 1.0 if lamp.sun else 2.25 / (0.3 + squared)
    shown: Floats = (facing * near)[:, None] * np.array(lamp.colour, np.float32)
    return shown, direction
