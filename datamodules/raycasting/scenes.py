"""Random scenes of two kinds that really differ: furnished rooms and city streets."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from datamodules.errors import DataError
from datamodules.raycasting.raycast import Floats, Scene
from datamodules.raycasting.scene_builder import (
    CHECKER,
    PLAIN,
    SPECKLE,
    STRIPES,
    TILES,
    WINDOWS,
    Rng,
    SceneBuilder,
)

Domain = Literal["rooms", "streets"]


@dataclass(frozen=True)
class CameraRange:
    """Ranges that each frame's camera is drawn from, uniformly."""

    fov_deg: tuple[float, float]
    """Horizontal field of view."""
    height_m: tuple[float, float]
    """Above the floor."""
    pitch_deg: tuple[float, float]
    """Positive looks up."""
    roll_deg: tuple[float, float]
    exposure: tuple[float, float]
    noise: tuple[float, float]

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            low, high = getattr(self, name)
            if not low <= high:
                raise DataError(f"camera {name}: {low} must not exceed {high}")
        if not 0 < self.fov_deg[0] <= self.fov_deg[1] < 180:
            raise DataError(f"camera fov_deg {self.fov_deg} must lie within 0..180")


ROOM_CAMERA = CameraRange(
    (55, 72), (0.9, 1.8), (-22, 8), (-4, 4), (0.8, 1.3), (0.01, 0.04)
)
STREET_CAMERA = CameraRange(
    (72, 90), (1.3, 2.2), (-7, 3), (-2, 2), (0.8, 1.3), (0.01, 0.03)
)


@dataclass(frozen=True)
class View:
    """One scene and the pose of the camera in it."""

    scene: Scene
    origin: Floats
    rotation: Floats


def build(domain: Domain, camera: CameraRange, rng: Rng) -> View:
    """Draw one scene of `domain` and a camera pose in it."""
    builder, x, y, heading = _room(rng) if domain == "rooms" else _street(rng)
    origin = np.array([x, y, rng.uniform(*camera.height_m)], np.float32)
    pitch, roll = np.radians(
        [rng.uniform(*camera.pitch_deg), rng.uniform(*camera.roll_deg)]
    )
    return View(builder.scene(), origin, rotation(heading, pitch, roll))


def rotation(heading: float, pitch: float, roll: float) -> Floats:
    """Columns right, ahead, up; heading 0 looks along +y."""
    ahead = np.array(
        [
            -np.sin(heading) * np.cos(pitch),
            np.cos(heading) * np.cos(pitch),
            np.sin(pitch),
        ]
    )
    level = np.array([np.cos(heading), np.sin(heading), 0.0])
    upright = np.cross(level, ahead)
    right = np.cos(roll) * level + np.sin(roll) * upright
    return np.stack((right, ahead, np.cross(right, ahead)), axis=1).astype(np.float32)


def _room(rng: Rng) -> tuple[SceneBuilder, float, float, float]:
    """A box room of 3-8 m with furniture, a lamp, and a camera that looks across it."""
    b = SceneBuilder(rng)
    half_x, half_y = rng.uniform(1.6, 3.6), rng.uniform(1.8, 4.2)
    height = rng.uniform(2.3, 3.3)
    wall = b.paint(
        int(rng.choice([PLAIN, PLAIN, STRIPES, TILES, SPECKLE])),
        rng.uniform(0.2, 0.7),
        0.5,
    )
    floor = b.paint(
        int(rng.choice([CHECKER, STRIPES, TILES, SPECKLE])), rng.uniform(0.12, 0.5), 0.4
    )
    ceiling = (0.8, 0.8, 0.78, 0.7, 0.7, 0.7, int(rng.choice([PLAIN, TILES])), 0.6)
    b.box(
        (0, 0, height / 2),
        (half_x, half_y, height / 2),
        0.0,
        wall,
        ends=ceiling,
        bottom=floor,
        inside=True,
    )
    b.light = (
        rng.uniform(-0.6, 0.6) * half_x,
        rng.uniform(-0.6, 0.6) * half_y,
        height - 0.15,
    )

    # The camera stands near one short wall and looks roughly at the opposite one.
    x, y = rng.uniform(-0.7, 0.7) * half_x, -half_y + rng.uniform(0.25, 1.0)
    heading = np.arctan2(x, half_y) + np.radians(rng.uniform(-25, 25))

    for _ in range(int(rng.integers(4, 10))):
        px, py = rng.uniform(-0.95, 0.95) * half_x, rng.uniform(-0.7, 0.97) * half_y
        if np.hypot(px - x, py - y) < 1.1:
            continue
        kind = rng.integers(6)
        pattern = int(rng.integers(6))
        paint = b.paint(pattern, rng.uniform(0.05, 0.4))
        yaw = float(rng.choice([0.0, rng.uniform(-1.5, 1.5)]))
        if kind == 0:  # a table: a slab on four legs
            w, d, h = (
                rng.uniform(0.35, 0.8),
                rng.uniform(0.3, 0.6),
                rng.uniform(0.6, 0.8),
            )
            b.box((px, py, h), (w, d, 0.03), 0.0, paint)
            for sx in (-1, 1):
                for sy in (-1, 1):
                    b.cylinder(
                        (px + sx * (w - 0.06), py + sy * (d - 0.06), 0), 0.03, h, paint
                    )
        elif kind == 1:
            radius = rng.uniform(0.12, 0.45)
            b.sphere((px, py, radius), radius, paint)
        elif kind == 2:
            b.cylinder(
                (px, py, 0), rng.uniform(0.08, 0.35), rng.uniform(0.4, 1.9), paint
            )
        elif kind == 3:  # a picture or window on the far wall
            w, h = rng.uniform(0.25, 0.8), rng.uniform(0.25, 0.6)
            b.box((px, half_y - 0.02, rng.uniform(1.2, 1.7)), (w, 0.02, h), 0.0, paint)
        elif kind == 4:  # a cupboard against a side wall
            side = rng.choice([-1, 1])
            w, d, h = (
                rng.uniform(0.2, 0.35),
                rng.uniform(0.3, 0.9),
                rng.uniform(0.4, 1.1),
            )
            b.box((side * (half_x - w), py, h), (w, d, h), 0.0, paint)
        else:
            w, d, h = (
                rng.uniform(0.15, 0.6),
                rng.uniform(0.15, 0.6),
                rng.uniform(0.15, 0.6),
            )
            b.box((px, py, h), (w, d, h), yaw, paint)
    return b, x, y, float(heading)


def _street(rng: Rng) -> tuple[SceneBuilder, float, float, float]:
    """A straight street along +y: houses, cars, poles, trees, people, sun and haze."""
    b = SceneBuilder(rng, sun=True)
    lane = rng.uniform(3.2, 5.5)
    pavement = rng.uniform(1.5, 4.0)
    asphalt = b.paint(SPECKLE, 0.25, 1.0)
    b.box((0, 40, -0.5), (150, 200, 0.5), 0.0, asphalt)
    for side in (-1, 1):
        kerb = b.paint(TILES, 0.6, 0.9)
        b.box(
            (side * (lane + pavement + 3), 40, 0.07),
            (pavement / 2 + 3 + pavement / 2, 150, 0.07),
            0.0,
            kerb,
        )
    mark = (0.8, 0.8, 0.75, 0.8, 0.8, 0.75, PLAIN, 1.0)
    b.box((0, 40, 0.005), (0.08, 150, 0.005), 0.0, mark)

    for side in (-1, 1):
        y = rng.uniform(-25, -12)
        while y < 110:
            length, gap = rng.uniform(8, 22), rng.choice([0, 0, rng.uniform(2, 8)])
            setback = lane + pavement + rng.uniform(0, 1.5)
            depth, height = rng.uniform(5, 9), rng.uniform(5, 22)
            paint = b.paint(
                int(rng.choice([WINDOWS, WINDOWS, WINDOWS, TILES, STRIPES])),
                rng.uniform(2.2, 3.6),
                0.5,
            )
            roof = b.paint(PLAIN, 1.0, 0.6)
            b.box(
                (side * (setback + depth), y + length / 2, height / 2),
                (depth, length / 2, height / 2),
                0.0,
                paint,
                ends=roof,
            )
            y += length + gap

    for _ in range(int(rng.integers(2, 7))):
        side = rng.choice([-1, 1])
        x, y = side * (lane - rng.uniform(1.0, 2.2)), rng.uniform(6, 60)
        paint = b.paint(PLAIN)
        glass = b.paint(PLAIN, 1.0, 0.8)
        b.box((x, y, 0.62), (0.9, 2.15, 0.42), 0.0, paint)
        b.box((x, y - 0.2, 1.25), (0.78, 1.1, 0.28), 0.0, glass, ends=paint)
    for _ in range(int(rng.integers(2, 7))):
        side = rng.choice([-1, 1])
        x, y = side * (lane + rng.uniform(0.3, 0.8)), rng.uniform(4, 60)
        b.cylinder(
            (x, y, 0),
            rng.uniform(0.07, 0.16),
            rng.uniform(3.5, 8),
            b.paint(PLAIN, 1.0, 0.8),
        )
    for _ in range(int(rng.integers(0, 5))):
        side = rng.choice([-1, 1])
        x, y, trunk = (
            side * (lane + rng.uniform(0.6, 1.4)),
            rng.uniform(5, 60),
            rng.uniform(1.8, 3.2),
        )
        crown = rng.uniform(1.0, 2.2)
        b.cylinder(
            (x, y, 0),
            rng.uniform(0.1, 0.25),
            trunk + 0.5,
            (0.2, 0.13, 0.08, 0.1, 0.07, 0.05, SPECKLE, 0.1),
        )
        green = (
            0.05,
            rng.uniform(0.2, 0.4),
            0.06,
            0.02,
            rng.uniform(0.08, 0.2),
            0.03,
            SPECKLE,
            0.25,
        )
        b.sphere((x, y, trunk + crown), crown, green)
    for _ in range(int(rng.integers(0, 5))):
        side = rng.choice([-1, 1])
        x, y, tall = (
            side * (lane + rng.uniform(-0.5, 1.2)),
            rng.uniform(4, 35),
            rng.uniform(1.3, 1.65),
        )
        b.cylinder((x, y, 0), 0.22, tall - 0.2, b.paint(STRIPES, 0.3))
        b.sphere((x, y, tall), 0.14, (0.6, 0.42, 0.33, 0.6, 0.42, 0.33, PLAIN, 1.0))

    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(25, 65))
    b.light = (
        float(np.cos(azimuth) * np.cos(elevation)),
        float(np.sin(azimuth) * np.cos(elevation)),
        float(np.sin(elevation)),
    )
    grey = rng.uniform(0, 0.7)
    b.sky = (0.35 + 0.25 * grey, 0.5 + 0.12 * grey, 0.75)
    x = rng.uniform(-0.6, 0.6) * lane
    return b, float(x), 0.0, float(np.radians(rng.uniform(-9, 9)))
