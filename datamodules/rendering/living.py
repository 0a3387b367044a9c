"""What grows and walks: plants, trees and people."""

from dataclasses import replace

import numpy as np

from datamodules.rendering.materials import random_material
from datamodules.rendering.meshes import ball, blob, capsule, joined, leaves, tube
from datamodules.rendering.surfaces import CLOTH, PLAIN, green, wood
from datamodules.rendering.world import World

Rng = np.random.Generator


def plant(world: World, x: float, y: float, z: float, yaw: float, rng: Rng) -> float:
    """A pot with leaves."""
    radius, tall = rng.uniform(0.1, 0.22), rng.uniform(0.15, 0.4)
    pot = tube(radius * 0.8, tall, 14, radius)
    world.add(pot.moved(x, y, z), random_material(rng, patterns=PLAIN))
    size = rng.uniform(0.15, 0.5)
    crown = leaves((size, size, size * rng.uniform(0.7, 1.8)), 160, size * 0.16, rng)
    world.add(crown.moved(x, y, z + tall), green(rng))
    return 0.3


def tree(world: World, x: float, y: float, rng: Rng) -> None:
    """A trunk with crowns of leaves, a cypress, or a bush; fewer leaves far away."""
    material = green(rng)
    fewer = 1 if y < 20 else 2
    if rng.uniform() < 0.25:
        size = rng.uniform(0.4, 1.3)
        bush = leaves(
            (size, size, size * 0.8), 240 // fewer**2, (0.12 * size + 0.04) * fewer, rng
        )
        world.add(bush.moved(x, y), material)
        world.add(
            blob(size * 0.7, rng).moved(x, y), replace(material, first=material.second)
        )
        return
    trunk, radius = rng.uniform(1.2, 4), rng.uniform(0.08, 0.3)
    bark = replace(wood(rng), bump=0.5, tile_m=0.6, gloss=0.0)
    high = trunk + rng.uniform(0.5, 1.5)
    world.add(tube(radius, high, 8, radius * 0.6).moved(x, y, -0.3), bark)
    size = rng.uniform(1, 3.2)
    slim = rng.choice([1.0, 1.0, 0.4])
    for _ in range(int(rng.integers(1, 5))):
        part = size * rng.uniform(0.5, 0.9)
        off = rng.uniform(-0.5, 0.5, 2) * size * slim
        axes = (part * slim, part * slim, part * rng.uniform(0.6, 1.4) / slim**0.5)
        crown = leaves(axes, 320 // fewer**2, (0.1 * part + 0.06) * fewer, rng)
        at = (x + off[0], y + off[1], trunk + rng.uniform(-0.4, 1.2) * (size - part))
        world.add(crown.moved(*at), material)
        if rng.uniform() < 0.7:
            inner = blob(part * 0.6, rng).scaled(slim, slim, 1)
            world.add(
                inner.moved(at[0], at[1], at[2] + part * 0.3),
                replace(material, first=material.second),
            )


def person(world: World, x: float, y: float, z: float, yaw: float, rng: Rng) -> float:
    """Legs, body, arms and a head, standing or walking."""
    tall = rng.uniform(1.2, 1.95)
    step, build = rng.uniform(0, 0.35), rng.uniform(0.8, 1.25)
    hip, shoulder = tall * 0.48, tall * 0.82
    legs = [
        capsule(0.075 * build, hip + 0.05).moved(tilt=s * step).moved(s * 0.09, 0, 0)
        for s in (-1, 1)
    ]
    trousers = random_material(rng, patterns=CLOTH, period_m=(0.02, 0.2))
    world.add(joined(legs).moved(x, y, z, yaw=yaw), trousers)
    body = (
        capsule(0.17 * build, shoulder - hip + 0.1)
        .scaled(1, 0.65, 1)
        .moved(z=hip - 0.05)
    )
    arms = [
        capsule(0.05 * build, 0.62)
        .moved(z=-0.58, tilt=-s * step * 1.2)
        .moved(s * 0.22 * build, 0, shoulder)
        for s in (-1, 1)
    ]
    shirt = random_material(rng, patterns=CLOTH, period_m=(0.02, 0.2))
    world.add(joined([body, *arms]).moved(x, y, z, yaw=yaw), shirt)
    tone = rng.uniform(0.06, 0.55)
    skin = replace(
        random_material(rng, patterns=PLAIN),
        first=(tone, tone * 0.7, tone * 0.55),
        second=(tone * 0.9, tone * 0.6, tone * 0.45),
        third=(tone, tone * 0.7, tone * 0.6),
        bump=0.0,
        stains=0.0,
        gloss=0.05,
    )
    head = ball(0.11, 14).scaled(0.85, 1, 1.15).moved(z=tall - 0.25)
    world.add(head.moved(x, y, z, yaw=yaw), skin)
    hair = ball(0.115, 12).scaled(0.9, 1, 0.9).moved(0, 0.015, tall - 0.19)
    world.add(
        hair.moved(x, y, z, yaw=yaw), random_material(rng, patterns=PLAIN, high=0.3)
    )
    return 0.35
