"""Streets, lanes and yards, and a camera at a driver's or a walker's height."""

from dataclasses import replace

import numpy as np

from datamodules.rendering.indoors import Pose
from datamodules.rendering.living import person, tree
from datamodules.rendering.materials import Pattern, random_material
from datamodules.rendering.meshes import (
    blob,
    box,
    joined,
    leaves,
    prism,
    sheet,
    tube,
)
from datamodules.rendering.surfaces import PLAIN, asphalt, green, hard, white_paint
from datamodules.rendering.vehicles import car
from datamodules.rendering.world import Lamp, World

Rng = np.random.Generator
FACADES = (Pattern.WINDOWS,) * 4 + (Pattern.BRICKS, Pattern.NONE, Pattern.TILES)
FENCES = (Pattern.PLANKS, Pattern.BRICKS, Pattern.NONE, Pattern.RIBS)


def street(rng: Rng) -> tuple[World, Pose]:
    """A road along +y with what stands beside it, by day."""
    world = World()
    _sky(world, rng)
    lane = rng.uniform(2.4, 7)
    pavement = rng.uniform(0, 3.5)
    _ground(world, lane, pavement, rng)
    for side in (-1, 1):
        edge = lane + pavement
        if rng.uniform() < 0.7:
            _houses(world, side, edge + rng.choice([0.2, rng.uniform(1, 12)]), rng)
        if rng.uniform() < 0.45:
            _fence(world, side, edge + rng.uniform(0.1, 1), rng)
        gap = rng.uniform(4, 25)
        for y in np.arange(rng.uniform(-3, 12), 90, gap):
            if rng.uniform() < 0.7:
                away = edge + rng.uniform(-0.6, 5) * rng.uniform()
                tree(world, side * (away + 0.6), float(y + rng.normal(0, 2)), rng)
        for _ in range(int(rng.integers(0, 6))):
            pole(world, side * (lane + rng.uniform(0.2, 1.2)), rng.uniform(3, 70), rng)
        parked = rng.uniform() < 0.6
        at = rng.uniform(-2, 15)
        while at < 70:
            if rng.uniform() < (0.65 if parked else 0.15):
                x = side * (lane - rng.uniform(0.9, 1.4))
                if abs(x) > 1.6 or at > 5:
                    along = 0.0 if rng.uniform() < 0.85 else rng.normal(0, 0.5)
                    car(world, x, at, along + np.pi * (rng.uniform() < 0.5), rng)
            at += rng.uniform(4.5, 14)
        for _ in range(int(rng.choice([0, 0, 1, 2, 4]))):
            x, y = side * (lane + rng.uniform(-0.5, pavement + 0.3)), rng.uniform(3, 40)
            person(world, x, y, 0.0, rng.uniform(0, 6.28), rng)
    if rng.uniform() < 0.6:  # traffic ahead
        for _ in range(int(rng.integers(1, 4))):
            x, y = rng.uniform(-0.7, 0.7) * (lane - 1), rng.uniform(7, 70)
            car(world, x, y, np.pi * (rng.uniform() < 0.4) + rng.normal(0, 0.1), rng)
    if rng.uniform() < 0.35:  # what closes the road
        far = rng.uniform(25, 110)
        _houses(world, 0, far, rng, across=True)
    for _ in range(int(rng.integers(0, 4))):
        hill = blob(rng.uniform(15, 50), rng, 0.2).scaled(2, 1, rng.uniform(0.2, 0.6))
        x, y = rng.uniform(-150, 150), rng.uniform(130, 260)
        world.add(hill.moved(x, y, -5), green(rng))
    x = rng.uniform(-0.7, 0.7) * (lane - 0.8)
    walker = rng.uniform() < 0.35
    if walker:
        x = rng.choice([-1, 1]) * (lane + rng.uniform(-0.5, pavement))
    z = rng.uniform(1.2, 1.9) if rng.uniform() < 0.8 else rng.uniform(1.9, 4)
    heading = rng.normal(0, 0.5 if walker else 0.12)
    pitch = rng.normal(-0.03, 0.1 if walker else 0.04)
    return world, Pose(x, 0.0, z, heading, pitch, float(rng.normal(0, 0.02)))


def _sky(world: World, rng: Rng) -> None:
    dull = rng.uniform() < 0.3
    bright = rng.uniform(0.5, 1.2)
    blue = np.array((rng.uniform(0.25, 0.6), rng.uniform(0.5, 0.75), 1.0))
    sky = bright * (np.array((0.9, 0.95, 1.0)) if dull else blue)
    world.sky = (float(sky[0]), float(sky[1]), float(sky[2]))
    world.clouds = float(rng.uniform(0, 1))
    level = rng.uniform(0.2, 0.5) * (0.5 * sky + 0.5 * sky.mean())
    world.ambient = (float(level[0]), float(level[1]), float(level[2]))
    world.haze_m = float(np.exp(rng.uniform(np.log(300), np.log(4000))))
    azimuth, high = rng.uniform(0, 6.28), np.radians(rng.uniform(12, 70))
    towards = (
        float(np.cos(azimuth) * np.cos(high)),
        float(np.sin(azimuth) * np.cos(high)),
        float(np.sin(high)),
    )
    power = rng.uniform(0, 0.25) if dull else rng.uniform(0.8, 3.5)
    warm = (power, power * rng.uniform(0.82, 1), power * rng.uniform(0.6, 0.95))
    world.lamps.append(Lamp(towards, 0.3 if dull else 0.02, warm, sun=True))


def _ground(world: World, lane: float, pavement: float, rng: Rng) -> None:
    """Fields that rise and fall, a road on them, kerbs and marks."""
    rows = np.linspace(0, rng.uniform(2, 12), 40)[:, None]
    cols = np.linspace(0, rng.uniform(2, 12), 41)[None]
    waves = rng.uniform(0, 1.2) * np.sin(rows + rng.uniform(0, 6)) * np.sin(cols)
    x = np.abs(np.linspace(-150, 150, 41))[None]
    beside = np.clip((x - lane - pavement - 4) / 20, 0, 1)
    bank = rng.uniform(-0.5, 2.5) * beside
    field = sheet(300, 340, (waves * beside + bank - 0.03) * np.ones((40, 1)))
    earth = green(rng) if rng.uniform() < 0.65 else random_material(rng, grey=0.7)
    earth = replace(earth, tile_m=float(rng.uniform(1, 6)), bump=0.3)
    world.add(field.moved(y=120), earth)
    road = (
        random_material(
            rng, patterns=(Pattern.BRICKS, Pattern.TILES), grey=0.9, period_m=(0.1, 0.4)
        )
        if rng.uniform() < 0.12
        else asphalt(rng)
    )
    world.add(box(2 * lane, 340, 0.02).moved(y=120, z=-0.02), road)
    paving = random_material(
        rng,
        patterns=(Pattern.TILES, Pattern.BRICKS, Pattern.NONE),
        grey=0.85,
        period_m=(0.15, 0.7),
    )
    for side in (-1, 1):
        if pavement > 0.6:
            high = rng.uniform(0.04, 0.16)
            slab = box(pavement + 0.3, 340, high + 0.02)
            world.add(slab.moved(side * (lane + pavement / 2), 120, -0.02), paving)
            kerb = box(0.14, 340, high + 0.03)
            world.add(kerb.moved(side * lane, 120, -0.02), asphalt(rng))
        elif rng.uniform() < 0.5:
            line = box(0.12, 340, 0.006)
            world.add(line.moved(side * (lane - 0.3), 120), white_paint(rng))
    if rng.uniform() < 0.6:
        long, gap = rng.uniform(1.5, 6), rng.uniform(1.5, 8)
        marks = [
            box(0.12, long, 0.008).moved(y=y) for y in np.arange(-4, 110, long + gap)
        ]
        world.add(
            joined(marks).moved(x=rng.choice([0, 0, lane * 0.3])), white_paint(rng)
        )
    if rng.uniform() < 0.2:
        bars = [
            box(0.45, 3, 0.008).moved(x) for x in np.arange(-lane + 0.5, lane, 0.95)
        ]
        world.add(joined(bars).moved(y=rng.uniform(5, 30)), white_paint(rng))


def _houses(
    world: World, side: int, edge: float, rng: Rng, *, across: bool = False
) -> None:
    """A row of houses along one side, or across the far end."""
    at, end = (-40.0, 40.0) if across else (rng.uniform(-20, -8), 110.0)
    usual = rng.uniform(3.5, 16)
    gaps = rng.choice([0, rng.uniform(2, 12)])
    while at < end:
        long, deep = rng.uniform(6, 20), rng.uniform(6, 12)
        tall = max(2.6, usual * rng.uniform(0.6, 1.5))
        wall = random_material(
            rng, patterns=FACADES, period_m=(1.6, 3.6), grey=0.75, low=0.06
        )
        if wall.pattern in (Pattern.BRICKS, Pattern.TILES):
            wall = replace(wall, period_m=rng.uniform(0.2, 1.0))
        back = rng.uniform(0, 2) * (gaps > 0)
        middle = side * (edge + deep / 2 + back)
        place = (at + long / 2, edge + deep / 2) if across else (middle, at + long / 2)
        turn = np.pi / 2 if across else 0.0
        parts = [(box(deep, long, tall), wall)]
        if tall < 12 and rng.uniform() < 0.6:
            roof = prism(deep + 0.6, long + 0.4, rng.uniform(1.5, 4)).moved(z=tall)
            slates = random_material(
                rng, patterns=(Pattern.BRICKS, Pattern.NONE), high=0.3
            )
            parts.append((roof, replace(slates, period_m=0.4)))
        face = -side * deep / 2
        openings = []
        for k in range(int(long // 3)):
            w, h = rng.uniform(0.8, 1.6), rng.uniform(0.9, 2.1)
            low = rng.choice([0.0, 0.9])
            openings.append(box(0.12, w, h).moved(face, (k + 0.5) * 3 - long / 2, low))
        if openings and rng.uniform() < 0.7:
            glass = random_material(rng, patterns=PLAIN, grey=0.9, high=0.25)
            parts.append((joined(openings), replace(glass, gloss=0.8)))
        if rng.uniform() < 0.3:
            balconies = [
                box(1.2, 2.4, 1.0).moved(face - side * 0.5, y, z)
                for z in np.arange(3, tall - 2, 3)
                for y in np.arange(-long / 2 + 2, long / 2 - 1, 4)
            ]
            if balconies:
                parts.append((joined(balconies), hard(rng)))
        for mesh, material in parts:
            world.add(mesh.moved(*place, yaw=turn), material)
        at += long + gaps * rng.uniform(0.3, 1.5)


def _fence(world: World, side: int, edge: float, rng: Rng) -> None:
    """A wall, hedge, rail or row of pickets along the road."""
    start, long = rng.uniform(-5, 20), rng.uniform(10, 70)
    tall = rng.uniform(0.6, 2.2)
    middle = (side * edge, start + long / 2)
    kind = int(rng.integers(3))
    if kind == 0:
        wall = random_material(rng, patterns=FENCES, period_m=(0.1, 0.5), grey=0.7)
        world.add(box(rng.uniform(0.05, 0.4), long, tall).moved(*middle), wall)
    elif kind == 1:
        material = green(rng)
        count = int(min(1200, 30 * long * tall))
        crown = leaves((0.45, long / 2, tall / 2), count, 0.13, rng)
        world.add(crown.moved(*middle), material)
        dark = replace(material, first=material.second)
        world.add(box(0.5, long * 0.97, tall * 0.9).moved(*middle), dark)
    else:
        posts = [
            box(0.08, 0.08, tall).moved(y=y)
            for y in np.arange(-long / 2, long / 2, rng.uniform(0.3, 2.5))
        ]
        rails = [box(0.05, long, 0.08).moved(z=tall * k) for k in (0.35, 0.9)]
        world.add(joined([*posts, *rails]).moved(*middle), hard(rng))


def pole(world: World, x: float, y: float, rng: Rng) -> None:
    """A lamp post, traffic sign or light, bollard, bin or post box."""
    kind, metal = int(rng.integers(5)), hard(rng)
    if kind == 0:
        tall = rng.uniform(4, 9)
        arm = box(rng.uniform(0.5, 2), 0.08, 0.08).moved(x=-np.sign(x) * 0.6, z=tall)
        world.add(joined([tube(0.08, tall, 8), arm]).moved(x, y), metal)
    elif kind <= 2:
        tall = rng.uniform(2, 3.2)
        world.add(tube(0.035, tall, 6).moved(x, y), metal)
        sign = random_material(
            rng,
            patterns=(Pattern.NONE, Pattern.POSTER),
            grey=0.1,
            low=0.2,
            period_m=(0.1, 0.4),
        )
        plate = box(rng.uniform(0.4, 0.8), 0.03, rng.uniform(0.4, 0.9))
        world.add(plate.moved(x, y - 0.05, tall - 0.7, yaw=rng.normal(0, 0.2)), sign)
    elif kind == 3:
        world.add(
            tube(rng.uniform(0.05, 0.15), rng.uniform(0.6, 1.1), 10).moved(x, y), metal
        )
    else:
        size = rng.uniform(0.3, 1.2, 3)
        world.add(box(*size).moved(x, y), random_material(rng, grey=0.3))
