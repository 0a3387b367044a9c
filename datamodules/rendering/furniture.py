"""Things of rooms: each function adds one to a world, at (x, y) on a floor at z."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from datamodules.rendering.living import person, plant
from datamodules.rendering.materials import random_material
from datamodules.rendering.meshes import (
    Mesh,
    ball,
    blob,
    box,
    joined,
    lathe,
    sheet,
    tube,
)
from datamodules.rendering.surfaces import CLOTH, PLAIN, PRINTED, hard
from datamodules.rendering.world import World

Rng = np.random.Generator


def table(world: World, x: float, y: float, z: float, yaw: float, rng: Rng) -> float:
    """A slab on legs, with clutter. Returns how far it reaches."""
    wide, deep, tall = rng.uniform(0.5, 2), rng.uniform(0.45, 1), rng.uniform(0.4, 0.8)
    thick = rng.uniform(0.015, 0.06)
    material = hard(rng)
    top = box(wide, deep, thick).moved(z=tall - thick)
    world.add(top.moved(x, y, z, yaw=yaw), material)
    leg = rng.uniform(0.02, 0.06)
    make = box(leg, leg, tall) if rng.uniform() < 0.5 else tube(leg / 2, tall, 8)
    legs = [
        make.moved(sx * (wide / 2 - leg), sy * (deep / 2 - leg))
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    frame = material if rng.uniform() < 0.5 else hard(rng)
    world.add(joined(legs).moved(x, y, z, yaw=yaw), frame)
    if rng.uniform() < 0.3:
        side = box(wide * 0.3, deep * 0.9, tall - thick).moved(wide * 0.3)
        world.add(side.moved(x, y, z, yaw=yaw), material)
    clutter(world, x, y, z + tall, yaw, (wide, deep), int(rng.integers(0, 8)), rng)
    return float(np.hypot(wide, deep) / 2)


def clutter(
    world: World,
    x: float,
    y: float,
    z: float,
    yaw: float,
    size: tuple[float, float],
    count: int,
    rng: Rng,
) -> None:
    """Small things on a surface of `size` metres."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    for _ in range(count):
        u, v = (rng.uniform(-0.45, 0.45) * side for side in size)
        at = (x + cos * u - sin * v, y + sin * u + cos * v, z)
        world.add(
            small_thing(rng).moved(*at, yaw=rng.uniform(0, 6.28)),
            random_material(rng, patterns=PRINTED, period_m=(0.01, 0.1)),
        )


def small_thing(rng: Rng) -> Mesh:
    """A thing that a hand can take."""
    big = float(np.exp(rng.uniform(np.log(0.03), np.log(0.16))))
    kind = int(rng.integers(9))
    if kind == 0:  # a box, a book on its side, a stack
        return box(*(big * rng.uniform(0.4, 2, 3)))
    if kind == 1:  # a cup or tin
        return tube(
            big * 0.5, big * rng.uniform(0.6, 2), 16, big * rng.uniform(0.4, 0.7)
        )
    if kind == 2:  # a bottle or vase
        waist, neck = rng.uniform(0.25, 0.5), rng.uniform(0.08, 0.2)
        radii = [0, 0.4, waist, waist, neck, neck, 0]
        heights = [0, 0, 0.3, rng.uniform(0.8, 1.3), 1.6, 2.0, 2.0]
        return lathe([big * r for r in radii], [big * h for h in heights], 16)
    if kind == 3:
        return ball(big * 0.5)
    if kind == 4:  # fruit, toys, crumpled things
        return blob(big * 0.6, rng, rng.uniform(0.1, 0.4)).scaled(
            1, rng.uniform(0.5, 1.5), rng.uniform(0.4, 1.2)
        )
    if kind == 5:  # a bowl or plate
        rim = big * rng.uniform(0.8, 1.4)
        return lathe(
            [0, rim * 0.5, rim, rim * 0.9, 0], [0, 0, rim * 0.5, rim * 0.5, 0.01]
        )
    if kind == 6:  # a screen or picture frame, leaning
        return box(big * 2.5, 0.02, big * 1.8).moved(tilt=rng.uniform(-0.3, 0.1))
    if kind == 7:  # tools, pens, cables: long ones
        return box(big * 3, big * 0.2, big * 0.2)
    parts = [
        box(*(big * rng.uniform(0.3, 1.2, 3))).moved(*(big * rng.uniform(-0.5, 0.5, 2)))
        for _ in range(3)
    ]
    return joined(parts)


def chair(world: World, x: float, y: float, z: float, yaw: float, rng: Rng) -> float:
    """Seat, back, and legs or a foot."""
    wide, seat = rng.uniform(0.38, 0.55), rng.uniform(0.4, 0.5)
    back = rng.uniform(0.3, 0.6)
    cover, frame = random_material(rng, patterns=CLOTH), hard(rng)
    lean = rng.uniform(-0.05, 0.2)
    soft = rng.uniform(0.02, 0.1)
    parts = [
        box(wide, wide, soft).moved(z=seat - soft),
        box(wide, 0.03 + soft / 2, back).moved(tilt=-lean).moved(0, wide / 2, seat),
    ]
    world.add(joined(parts).moved(x, y, z, yaw=yaw), cover)
    if rng.uniform() < 0.7:
        leg = tube(0.018, seat, 6)
        feet = [
            leg.moved(sx * (wide / 2 - 0.03), sy * (wide / 2 - 0.03))
            for sx in (-1, 1)
            for sy in (-1, 1)
        ]
    else:
        arm = box(0.6, 0.05, 0.05)
        feet = [tube(0.03, seat, 8), *(arm.moved(yaw=k * 1.05) for k in range(3))]
    world.add(joined(feet).moved(x, y, z, yaw=yaw), frame)
    if rng.uniform() < 0.3:
        rests = [
            box(0.05, wide, 0.04).moved(s * wide / 2, 0, seat + 0.2) for s in (-1, 1)
        ]
        world.add(joined(rests).moved(x, y, z, yaw=yaw), frame)
    return 0.4


def shelf(world: World, x: float, y: float, z: float, yaw: float, rng: Rng) -> float:
    """Boards between sides, with rows of books and things."""
    wide, deep, tall = (
        rng.uniform(0.5, 1.8),
        rng.uniform(0.2, 0.5),
        rng.uniform(0.7, 2.3),
    )
    boards = int(rng.integers(2, 7))
    step = tall / boards
    material = hard(rng)
    parts = [box(0.02, deep, tall).moved(s * wide / 2) for s in (-1, 1)]
    parts += [box(wide, deep, 0.02).moved(z=k * step) for k in range(boards + 1)]
    if rng.uniform() < 0.7:
        parts.append(box(wide, 0.01, tall).moved(0, deep / 2))
    world.add(joined(parts).moved(x, y, z, yaw=yaw), material)
    for k in range(boards):
        if rng.uniform() < 0.5:  # books of three bindings
            bindings: list[list[Mesh]] = [[], [], []]
            at = -wide / 2 + 0.05
            while at < wide / 2 - 0.08 and rng.uniform() < 0.97:
                thick = rng.uniform(0.015, 0.06)
                high = min(rng.uniform(0.14, 0.3), step - 0.03)
                book = box(thick * 0.95, rng.uniform(0.6, 0.9) * deep, high)
                bindings[int(rng.integers(3))].append(
                    book.moved(at, 0, k * step + 0.02)
                )
                at += thick
            for own in filter(None, bindings):
                paint = random_material(
                    rng, patterns=PRINTED, period_m=(0.02, 0.2), grey=0.3
                )
                world.add(joined(own).moved(x, y, z, yaw=yaw), paint)
        else:
            over = z + k * step + 0.02
            clutter(world, x, y, over, yaw, (wide, deep), int(rng.integers(0, 5)), rng)
    return float(np.hypot(wide, deep) / 2)


def cabinet(world: World, x: float, y: float, z: float, yaw: float, rng: Rng) -> float:
    """A body with doors or drawers and handles, and things on it."""
    wide, deep = rng.uniform(0.4, 1.6), rng.uniform(0.35, 0.65)
    tall = rng.uniform(0.45, 2.2)
    material = hard(rng)
    world.add(box(wide, deep, tall).moved(x, y, z, yaw=yaw), material)
    cols, rows = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    fronts, knobs = [], []
    for i in range(cols):
        for j in range(rows):
            w, h = wide / cols, tall / rows
            at = ((i + 0.5) * w - wide / 2, -deep / 2 - 0.01)
            fronts.append(box(w * 0.96, 0.02, h * 0.95).moved(*at, j * h + 0.02 * h))
            knob = box(min(0.12, w / 2), 0.03, 0.015)
            knobs.append(knob.moved(at[0], at[1] - 0.02, (j + 0.8) * h))
    front = material if rng.uniform() < 0.6 else hard(rng)
    world.add(joined(fronts).moved(x, y, z, yaw=yaw), front)
    world.add(joined(knobs).moved(x, y, z, yaw=yaw), hard(rng))
    if tall < 1.4:
        clutter(world, x, y, z + tall, yaw, (wide, deep), int(rng.integers(0, 6)), rng)
    return float(np.hypot(wide, deep) / 2)


def sofa(world: World, x: float, y: float, z: float, yaw: float, rng: Rng) -> float:
    """A sofa, an armchair, or with a low back a bed; cushions on it."""
    wide, deep = rng.uniform(0.8, 2.2), rng.uniform(0.8, 2.0)
    seat, back = rng.uniform(0.3, 0.5), rng.uniform(0.1, 0.55)
    cover = random_material(rng, patterns=CLOTH, period_m=(0.03, 0.4))
    parts = [
        box(wide, deep, seat),
        box(wide, 0.18, seat + back).moved(0, deep / 2),
    ]
    if rng.uniform() < 0.6:
        parts += [box(0.18, deep, seat + 0.2).moved(s * wide / 2) for s in (-1, 1)]
    world.add(joined(parts).moved(x, y, z, yaw=yaw), cover)
    cos, sin = np.cos(yaw), np.sin(yaw)
    for _ in range(int(rng.integers(0, 5))):
        u, v = rng.uniform(-0.4, 0.4) * wide, rng.uniform(-0.3, 0.45) * deep
        pillow = blob(0.25, rng, 0.12).scaled(
            1, rng.uniform(0.5, 1), rng.uniform(0.3, 0.6)
        )
        at = (x + cos * u - sin * v, y + sin * u + cos * v, z + seat - 0.04)
        world.add(
            pillow.moved(*at, yaw=rng.uniform(0, 6)),
            random_material(rng, patterns=CLOTH),
        )
    if rng.uniform() < 0.4:  # a blanket
        folds = (
            0.03 * np.sin(np.linspace(0, 20, 24))[None] * rng.uniform(0.3, 1, (8, 1))
        )
        rug = sheet(wide * 0.9, deep * 0.7, folds + 0.03).moved(z=seat)
        world.add(rug.moved(x, y, z, yaw=yaw), random_material(rng, patterns=CLOTH))
    return float(np.hypot(wide, deep) / 2)


def lamp(world: World, x: float, y: float, z: float, yaw: float, rng: Rng) -> float:
    """A stand with a shade that glows."""
    tall = rng.uniform(0.4, 1.7)
    world.add(tube(0.015, tall, 6).moved(x, y, z), hard(rng))
    shade = tube(rng.uniform(0.12, 0.25), 0.25, 16, rng.uniform(0.06, 0.2))
    glow = replace(
        random_material(rng, patterns=PLAIN, low=0.4), emission=rng.uniform(0, 1.5)
    )
    world.add(shade.moved(x, y, z + tall - 0.1), glow)
    return 0.25


def pile(world: World, x: float, y: float, z: float, yaw: float, rng: Rng) -> float:
    """Boxes on and beside each other, a bin, or a bag."""
    if rng.uniform() < 0.3:
        sack = blob(rng.uniform(0.15, 0.4), rng, 0.2)
        world.add(sack.moved(x, y, z), random_material(rng, patterns=CLOTH))
        return 0.4
    if rng.uniform() < 0.3:
        bin_ = tube(
            rng.uniform(0.1, 0.25), rng.uniform(0.25, 0.8), 16, rng.uniform(0.12, 0.3)
        )
        world.add(bin_.moved(x, y, z), random_material(rng))
        return 0.3
    base = 0.0
    for _ in range(int(rng.integers(1, 4))):
        size = rng.uniform(0.12, 0.6, 3)
        shifted = rng.uniform(-0.1, 0.1, 2)
        crate = box(*size).moved(x + shifted[0], y + shifted[1], z + base, yaw=yaw)
        world.add(crate, random_material(rng, patterns=PRINTED, period_m=(0.05, 0.5)))
        base += size[2]
    return 0.5


FURNITURE: tuple[Callable[[World, float, float, float, float, Rng], float], ...] = (
    *(table, table, chair, chair, chair, shelf, shelf, cabinet, cabinet),
    *(sofa, sofa, plant, lamp, person, pile, pile),
)
