"""Cars, vans and lorries."""

from dataclasses import replace

import numpy as np

from datamodules.rendering.materials import random_material
from datamodules.rendering.meshes import box, extruded, joined, tube
from datamodules.rendering.surfaces import PLAIN, white_paint
from datamodules.rendering.world import World

Rng = np.random.Generator


def car(world: World, x: float, y: float, yaw: float, rng: Rng) -> None:
    """A car, van or lorry: body, glass, wheels, lights and plate."""
    paint = random_material(
        rng, patterns=PLAIN, grey=float(rng.choice([1.0, 0.9, 0.2])), low=0.02
    )
    paint = replace(paint, gloss=0.7, contrast=0.08, stains=0.05, bump=0.0)
    glass = replace(
        random_material(rng, patterns=PLAIN, grey=0.9, high=0.06), gloss=0.9
    )
    kind = rng.uniform()
    wheel, wide = 0.31, rng.uniform(1.6, 1.9)
    long = rng.uniform(3.5, 4.8)
    front, back = long / 2, -long / 2
    if kind < 0.75:
        belt, roof = rng.uniform(0.8, 0.95), rng.uniform(1.38, 1.75)
        tail = rng.choice([0.0, rng.uniform(0.4, 0.9)])
        lower = extruded(
            [
                (back, 0.3),
                (front, 0.25),
                (front, 0.6),
                (front - 0.15, belt - 0.12),
                (front - 1.1, belt),
                (back + 0.05, belt),
                (back, 0.7),
            ],
            wide,
        )
        upper = extruded(
            [
                (back + tail, belt - 0.02),
                (front - 0.85, belt - 0.02),
                (front - 1.7, roof - 0.04),
                (back + tail + 0.5, roof - 0.04),
            ],
            wide * 0.9,
        )
        top = extruded(
            [
                (back + tail + 0.45, roof - 0.05),
                (front - 1.65, roof - 0.05),
                (front - 1.9, roof),
                (back + tail + 0.7, roof),
            ],
            wide * 0.86,
        )
        bodies, panes = [lower, top], [upper]
    else:
        high, long = rng.uniform(1.9, 3.4), rng.uniform(4.5, 9)
        wide, front, back = wide * 1.15, long / 2, -long / 2
        bodies = [
            box(wide, long - 1.2, high - 0.4).moved(y=-0.6, z=0.4),
            extruded(
                [
                    (front - 1.25, 0.35),
                    (front, 0.35),
                    (front, 1.0),
                    (front - 0.5, min(1.9, high)),
                    (front - 1.25, min(1.9, high)),
                ],
                wide,
            ),
        ]
        panes = [box(wide * 0.9, 0.5, 0.6).moved(y=front - 0.38, z=1.05)]
    tyre = tube(wheel, 0.22, 14).moved(z=-0.11)
    sideways = tyre._replace(vertices=tyre.vertices[:, [2, 1, 0]])
    wheels = [
        sideways.moved(sx * (wide / 2 - 0.1), sy * long * 0.31, wheel)
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    rubber = random_material(rng, patterns=PLAIN, grey=1, high=0.06)
    lights = [
        box(0.3, 0.06, 0.14).moved(sx * (wide / 2 - 0.22), yy, 0.62)
        for sx in (-1, 1)
        for yy in (front, back)
    ]
    plate = [box(0.5, 0.04, 0.11).moved(0, yy, 0.45) for yy in (front, back)]
    lit = random_material(rng, patterns=PLAIN, grey=0.3, low=0.3)
    for mesh, material in (
        (joined(bodies), paint),
        (joined(panes), glass),
        (joined(wheels), rubber),
        (joined(lights), replace(lit, emission=float(rng.uniform(0, 1)))),
        (joined(plate), white_paint(rng)),
    ):
        world.add(mesh.moved(x, y, yaw=yaw), material)
