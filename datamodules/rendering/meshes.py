"""Triangle meshes of simple things, in metres, standing on z = 0 around the origin.

Axes: x right, y ahead, z up. Every function gives a `Mesh` of its own; `joined` makes
one of several, and `Mesh.moved` puts it where it belongs.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.int32]
Rng = np.random.Generator


class Mesh(NamedTuple):
    """Triangles; their winding does not matter, normals are turned to the viewer."""

    vertices: Floats
    """(V, 3)."""
    faces: Ints
    """(F, 3) rows of `vertices`."""

    def moved(
        self,
        x: float = 0.0,
        y: float = 0.0,
        z: float = 0.0,
        *,
        yaw: float = 0.0,
        tilt: float = 0.0,
    ) -> Self:
        """Tilted about x, then turned about z (radians), then moved."""
        ct, st, cy, sy = np.cos(tilt), np.sin(tilt), np.cos(yaw), np.sin(yaw)
        about_x = np.array([[1, 0, 0], [0, ct, -st], [0, st, ct]])
        about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
        turned = self.vertices @ (about_z @ about_x).T + (x, y, z)
        return self._replace(vertices=turned.astype(np.float32))

    def scaled(self, x: float, y: float, z: float) -> Self:
        """Stretched along the axes."""
        factors = np.array((x, y, z), np.float32)
        return self._replace(vertices=self.vertices * factors)


def joined(parts: Sequence[Mesh]) -> Mesh:
    """One mesh of several."""
    starts = np.cumsum([0, *(len(p.vertices) for p in parts[:-1])])
    faces = [p.faces + start for p, start in zip(parts, starts, strict=True)]
    return Mesh(
        np.concatenate([p.vertices for p in parts]).astype(np.float32),
        np.concatenate(faces).astype(np.int32),
    )


_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (0, 1)])
_SIDES = np.array(
    [
        *([0, 1, 3], [0, 3, 2], [4, 5, 7], [4, 7, 6], [0, 1, 5], [0, 5, 4]),
        *([2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 3, 7], [1, 7, 5]),
    ],
    np.int32,
)


def box(wide: float, deep: float, tall: float) -> Mesh:
    """A cuboid; sizes along x, y and z."""
    size = np.array((wide / 2, deep / 2, tall))
    return Mesh((_CORNERS * size).astype(np.float32), _SIDES)


def prism(wide: float, deep: float, tall: float, top: float = 0.0) -> Mesh:
    """A gable roof, or with `top` a box whose upper face is that part as wide."""
    made = box(wide, deep, tall).vertices.copy()
    made[made[:, 2] > 0, 0] *= top
    return Mesh(made, _SIDES)


def lathe(radii: Sequence[float], heights: Sequence[float], sides: int = 14) -> Mesh:
    """A round body from its outline, open where a radius is not 0."""
    angles = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = np.stack((np.cos(angles), np.sin(angles)), -1)
    rows = [
        np.column_stack((ring * radius, np.full(sides, height)))
        for radius, height in zip(radii, heights, strict=True)
    ]
    return Mesh(
        np.concatenate(rows).astype(np.float32), _grid(len(rows), sides, round_=True)
    )


def tube(radius: float, tall: float, sides: int = 14, top: float | None = None) -> Mesh:
    """A closed cylinder, or a cone's part with another radius at its top."""
    end = radius if top is None else top
    return lathe([0, radius, end, 0], [0, 0, tall, tall], sides)


def ball(radius: float, sides: int = 14) -> Mesh:
    """A sphere that rests on z = 0."""
    turn = np.linspace(0, np.pi, sides // 2 + 1)
    outline = zip(radius * np.sin(turn), radius - radius * np.cos(turn), strict=True)
    radii, heights = zip(*outline, strict=True)
    return lathe(radii, heights, sides)


def capsule(radius: float, tall: float, sides: int = 10) -> Mesh:
    """A tube with round ends."""
    turn = np.linspace(0, np.pi / 2, 4)
    low = radius - radius * np.cos(turn)
    radii = [*(radius * np.sin(turn)), *(radius * np.cos(turn))]
    heights = [*low, *(tall - radius + radius * np.sin(turn))]
    return lathe(radii, heights, sides)


def blob(radius: float, rng: Rng, rough: float = 0.25, sides: int = 16) -> Mesh:
    """A lump: a sphere whose radius a few random waves change."""
    made = ball(1.0, sides).vertices - (0, 0, 1)
    change = np.zeros(len(made))
    for _ in range(6):
        wave = rng.normal(size=3) * rng.uniform(1, 4)
        change += np.sin(made @ wave + rng.uniform(0, 6.28)) / 3
    lump = made * (radius * (1 + rough * change))[:, None]
    lump[:, 2] += radius
    return Mesh(lump.astype(np.float32), ball(1.0, sides).faces)


def sheet(
    wide: float, deep: float, heights: NDArray[np.floating], *, upright: bool = False
) -> Mesh:
    """A grid (rows along y, columns along x) lifted by `heights` (R, C).

    With `upright` it hangs: rows go up, and `heights` push it along y.
    """
    rows, cols = heights.shape
    x, y = np.meshgrid(
        np.linspace(-wide / 2, wide / 2, cols), np.linspace(-deep / 2, deep / 2, rows)
    )
    planes = (x, heights, y + deep / 2) if upright else (x, y, heights)
    vertices = np.stack(planes, -1).reshape(-1, 3)
    return Mesh(vertices.astype(np.float32), _grid(rows, cols, round_=False))


def extruded(outline: Sequence[tuple[float, float]], wide: float) -> Mesh:
    """A convex outline in (y, z), as thick as `wide` along x."""
    points, half = np.array(outline), wide / 2
    count = len(points)
    left = np.column_stack((np.full(count, -half), points))
    right = np.column_stack((np.full(count, half), points))
    around = np.arange(count)
    after = (around + 1) % count
    fan = np.stack((np.zeros(count - 2), around[1:-1], around[2:]), -1)
    faces = np.concatenate(
        [
            fan,
            fan + count,
            np.stack((around, after, after + count), -1),
            np.stack((around, after + count, around + count), -1),
        ]
    )
    vertices = np.concatenate([left, right])
    return Mesh(vertices.astype(np.float32), faces.astype(np.int32))


def leaves(size: tuple[float, float, float], count: int, leaf: float, rng: Rng) -> Mesh:
    """Small squares turned at random, in an ellipsoid of half axes `size`."""
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    away = rng.uniform(0.35, 1, (count, 1)) ** (1 / 2)
    centre = direction * away * np.array(size)
    first = rng.normal(size=(count, 3))
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(first, rng.normal(size=(count, 3)))
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    edge = leaf * rng.uniform(0.5, 1.2, (count, 1))
    corners = [
        centre + edge * (a * first + b * second)
        for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]
    vertices = np.stack(corners, 1).reshape(-1, 3)
    vertices[:, 2] += size[2]
    halves = np.array([[0, 1, 2], [0, 2, 3]])
    faces = (4 * np.arange(count)[:, None, None] + halves).reshape(-1, 3)
    return Mesh(vertices.astype(np.float32), faces.astype(np.int32))


@cache
def _grid(rows: int, cols: int, *, round_: bool) -> Ints:
    """Faces between neighbouring rows of points."""
    right = np.arange(cols) if round_ else np.arange(cols - 1)
    after = (right + 1) % cols
    faces = []
    for row in range(rows - 1):
        low, high = row * cols, (row + 1) * cols
        faces.append(np.stack((low + right, low + after, high + after), -1))
        faces.append(np.stack((low + right, high + after, high + right), -1))
    return np.concatenate(faces).astype(np.int32)
