"""Rooms, corridors and table tops, and where a camera stands in them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from datamodules.rendering.furniture import FURNITURE, clutter
from datamodules.rendering.materials import Material, Pattern, random_material
from datamodules.rendering.meshes import Mesh, box, joined, sheet, tube
from datamodules.rendering.surfaces import CLOTH, hard, wood
from datamodules.rendering.world import Lamp, World

Rng = np.random.Generator
WALLS = (Pattern.NONE,) * 12 + (Pattern.TILES, Pattern.BRICKS, Pattern.STRIPES)
FLOORS = (Pattern.NONE, Pattern.TILES, Pattern.PLANKS, Pattern.PLANKS, Pattern.CHECKER)


@dataclass(frozen=True)
class Pose:
    """Where a camera stands and looks; heading 0 is along +y, pitch up is positive."""

    x: float
    y: float
    z: float
    heading: float
    pitch: float
    roll: float


def room(rng: Rng) -> tuple[World, Pose]:
    """A furnished room or hall, seen from somewhere in it."""
    world = World()
    long = rng.uniform() < 0.2
    half_x = rng.uniform(0.8, 1.6) if long else rng.uniform(1.2, 3.5)
    half_y = rng.uniform(3, 7) if long else rng.uniform(1.4, 4.2)
    tall = rng.uniform(2.2, 3.6)
    _shell(world, half_x, half_y, tall, rng)
    _lights(world, half_x, half_y, tall, rng)
    x, y = rng.uniform(-0.85, 0.85) * half_x, -half_y * rng.uniform(0.2, 0.9)
    taken = [(x, y, 0.55)]
    for _ in range(int(rng.integers(8, 20 + int(2 * half_x * half_y)))):
        make = FURNITURE[int(rng.integers(len(FURNITURE)))]
        by_wall = rng.uniform() < 0.7
        px, py = rng.uniform(-0.9, 0.9) * half_x, rng.uniform(-0.9, 0.9) * half_y
        yaw = rng.choice([0, np.pi / 2, np.pi, -np.pi / 2]) + rng.normal(0, 0.15)
        if by_wall:
            side = int(rng.integers(4))
            off = rng.uniform(0.2, 0.5)
            if side < 2:
                px, yaw = (
                    (2 * side - 1) * (half_x - off),
                    (-np.pi / 2, np.pi / 2)[1 - side],
                )
            else:
                py, yaw = (2 * side - 5) * (half_y - off), (np.pi, 0)[side - 2]
        if any(np.hypot(px - a, py - b) < r + 0.35 for a, b, r in taken):
            continue
        reach = make(world, px, py, 0.0, float(yaw), rng)
        taken.append((px, py, reach * 0.8))
    ahead = np.arctan2(x, half_y - y) + rng.normal(0, 0.45)
    pitch = np.radians(np.clip(rng.normal(-12, 13), -50, 20))
    z = rng.uniform(0.6, min(1.9, tall - 0.3))
    return world, Pose(x, y, z, float(ahead), float(pitch), float(rng.normal(0, 0.05)))


def table_top(rng: Rng) -> tuple[World, Pose]:
    """Things on a table, in a bin or on a shelf, seen from a short way off."""
    world = World()
    half_x, half_y, tall = rng.uniform(1.2, 3), rng.uniform(1.2, 3), rng.uniform(2.3, 3)
    _shell(world, half_x, half_y, tall, rng)
    _lights(world, half_x, half_y, tall, rng)
    high, size = rng.uniform(0.5, 0.95), rng.uniform(0.5, 1.6, 2)
    top = (
        wood(rng) if rng.uniform() < 0.5 else random_material(rng, period_m=(0.02, 0.2))
    )
    world.add(box(size[0], size[1], 0.04).moved(z=high - 0.04), top)
    world.add(box(size[0] * 0.8, 0.05, high - 0.04), hard(rng))
    if rng.uniform() < 0.25:
        wall = rng.uniform(0.05, 0.3)
        sides = [
            box(size[0], 0.01, wall).moved(y=s * size[1] / 2, z=high) for s in (-1, 1)
        ] + [box(0.01, size[1], wall).moved(x=s * size[0] / 2, z=high) for s in (-1, 1)]
        world.add(joined(sides), random_material(rng))
    spread = float(rng.uniform(0.4, 1))
    count = int(rng.integers(3, 28))
    clutter(world, 0, 0, high, 0.0, (size[0] * spread, size[1] * spread), count, rng)
    for _ in range(int(rng.integers(1, 7))):
        make = FURNITURE[int(rng.integers(len(FURNITURE)))]
        side = rng.choice([-1, 1])
        px, py = rng.uniform(-0.9, 0.9) * half_x, rng.uniform(0.6, 0.9) * half_y
        if abs(px) < 0.4 * half_x and rng.uniform() < 0.5:
            px = side * 0.8 * half_x
        make(world, px, py, 0.0, float(rng.uniform(0, 6.28)), rng)
    pitch = np.radians(rng.uniform(-75, -12))
    away = rng.uniform(0.4, 1.4)
    z = high - away * np.sin(pitch)
    y = -away * np.cos(pitch)
    x = rng.uniform(-0.3, 0.3) * size[0]
    heading = float(np.arctan2(x, -y) + rng.normal(0, 0.15))
    return world, Pose(x, y, z, heading, float(pitch), float(rng.normal(0, 0.08)))


def _shell(world: World, half_x: float, half_y: float, tall: float, rng: Rng) -> None:
    """Floor, ceiling, walls with doors, windows and pictures, skirting, a rug."""
    floor = random_material(rng, patterns=FLOORS, period_m=(0.08, 0.6), grey=0.5)
    if rng.uniform() < 0.4:
        floor = replace(
            wood(rng), pattern=Pattern.PLANKS, period_m=rng.uniform(0.07, 0.2)
        )
    world.add(box(2 * half_x, 2 * half_y, 0.1).moved(z=-0.1), floor)
    above = random_material(
        rng,
        patterns=(Pattern.NONE, Pattern.NONE, Pattern.TILES),
        period_m=(0.5, 0.7),
        grey=0.9,
        low=0.4,
        high=0.9,
    )
    above = replace(above, contrast=above.contrast * 0.2, bump=0.0, gloss=0.0)
    world.add(box(2 * half_x, 2 * half_y, 0.1).moved(z=tall), above)
    common = _wall(rng)
    for side in range(4):
        wall = common if rng.uniform() < 0.7 else _wall(rng)
        across = half_y if side % 2 else half_x
        away = half_x if side % 2 else half_y
        yaw = side * np.pi / 2

        def put(
            mesh: Mesh, material: Material, yaw: float = yaw, away: float = away
        ) -> None:
            world.add(mesh.moved(y=away).moved(yaw=yaw), material)

        put(box(2 * across, 0.1, tall).moved(y=0.05), wall)
        if rng.uniform() < 0.6:
            put(box(2 * across, 0.03, rng.uniform(0.05, 0.15)), hard(rng))
        for _ in range(int(rng.integers(0, 4))):
            _on_wall(put, across, tall, rng)
    if rng.uniform() < 0.35:
        rug = random_material(
            rng,
            patterns=(Pattern.NONE, Pattern.CHECKER, Pattern.STRIPES, Pattern.POSTER),
            period_m=(0.05, 0.5),
        )
        carpet = box(rng.uniform(0.8, 2), rng.uniform(0.8, 2.5), 0.012)
        world.add(carpet.moved(*rng.uniform(-0.5, 0.5, 2), yaw=rng.normal(0, 0.3)), rug)
    if rng.uniform() < 0.2:
        beam = box(rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.5), tall)
        world.add(beam.moved(rng.uniform(-0.8, 0.8) * half_x, half_y * 0.7), _wall(rng))


def _wall(rng: Rng) -> Material:
    made = random_material(
        rng,
        patterns=WALLS,
        period_m=(0.06, 0.5),
        grey=float(rng.choice([0.9, 0.9, 0.5])),
        low=0.15,
        high=0.9,
    )
    quiet = rng.uniform(0.05, 1)
    return replace(
        made,
        contrast=made.contrast * quiet,
        stains=made.stains * quiet,
        bump=made.bump * quiet,
        gloss=made.gloss * 0.3,
    )


def _on_wall(
    add: Callable[[Mesh, Material], None], across: float, tall: float, rng: Rng
) -> None:
    """A picture, door, window with curtains, board or radiator on one wall."""
    at = rng.uniform(-0.85, 0.85) * across
    kind = int(rng.integers(6))
    if kind <= 1:
        w, h = rng.uniform(0.2, 1.2), rng.uniform(0.2, 0.9)
        z = rng.uniform(1.0, 1.7) - h / 2
        add(box(w + 0.06, 0.04, h + 0.06).moved(at, -0.02, z - 0.03), hard(rng))
        art = random_material(
            rng, patterns=(Pattern.POSTER, Pattern.NONE), grey=0.3, period_m=(0.04, 0.3)
        )
        add(box(w, 0.05, h).moved(at, -0.02, z), art)
    elif kind == 2:
        w = rng.uniform(0.75, 1)
        add(box(w + 0.16, 0.06, 2.1).moved(at, -0.03), hard(rng))
        add(box(w, 0.08, 2.02).moved(at, -0.03), hard(rng))
        add(box(0.12, 0.14, 0.03).moved(at + w * 0.4, -0.05, 1.0), hard(rng))
    elif kind == 3:
        w, h, z = rng.uniform(0.6, 2), rng.uniform(0.8, 1.4), rng.uniform(0.7, 1)
        day = replace(
            random_material(
                rng, patterns=(Pattern.NONE, Pattern.POSTER), low=0.4, grey=0.7
            ),
            emission=float(rng.uniform(0.3, 4)),
        )
        frame = hard(rng)
        add(box(w, 0.02, h).moved(at, -0.01, z), day)
        bars = [box(w + 0.1, 0.08, 0.05).moved(at, -0.03, z + k * h) for k in (0, 1)]
        bars += [box(0.05, 0.07, h).moved(at + k * w / 2, -0.03, z) for k in (-1, 0, 1)]
        add(joined(bars), frame)
        if rng.uniform() < 0.6:
            cloth = random_material(rng, patterns=CLOTH)
            for side in (-1, 1):
                wave = 0.04 * np.sin(np.linspace(0, rng.uniform(12, 30), 40))
                hung = sheet(w * 0.35, h + z, np.tile(wave, (2, 1)), upright=True)
                add(hung.moved(at + side * w * 0.55, -0.1, 0.05), cloth)
    elif kind == 4:
        w, h = rng.uniform(0.6, 2.2), rng.uniform(0.5, 1.2)
        board = random_material(rng, patterns=(Pattern.NONE,), grey=0.9)
        add(box(w, 0.04, h).moved(at, -0.02, 0.9), replace(board, gloss=0.6))
    else:
        ribs = [box(0.05, 0.1, 0.6).moved(at + k * 0.07, -0.08, 0.1) for k in range(10)]
        add(joined(ribs), random_material(rng, patterns=(Pattern.NONE,), low=0.3))


def _lights(world: World, half_x: float, half_y: float, tall: float, rng: Rng) -> None:
    """Lamps below the ceiling and light from windows, warm or cold."""
    level = rng.uniform(0.12, 0.5)
    warm = np.array((1, rng.uniform(0.75, 1.05), rng.uniform(0.5, 1.1)))
    r, g, b = level * warm
    world.ambient = (float(r), float(g), float(b))
    for _ in range(int(rng.integers(1, 4))):
        x, y = rng.uniform(-0.8, 0.8) * half_x, rng.uniform(-0.8, 0.8) * half_y
        z = tall - 0.15 if rng.uniform() < 0.7 else rng.uniform(0.8, 2)
        power = rng.uniform(0.3, 2.5) * np.array(
            (1, rng.uniform(0.7, 1.05), rng.uniform(0.4, 1.1))
        )
        r, g, b = (float(v) for v in power)
        world.lamps.append(Lamp((x, y, z), float(rng.uniform(0.02, 0.6)), (r, g, b)))
        if rng.uniform() < 0.5 and z > tall - 0.2:
            shade = replace(random_material(rng, low=0.5, grey=0.9), emission=2.0)
            world.add(tube(0.18, 0.08).moved(x, y, tall - 0.08), shade)
