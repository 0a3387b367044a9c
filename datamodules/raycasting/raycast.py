"""A small vectorised ray caster: boxes, spheres and upright cylinders.

World axes: x right, y ahead, z up, metres. Every function works on all rays and all
primitives of one type at once; float32 throughout. Rays are scaled so that one unit of
their parameter is one metre along the camera's axis: the nearest hit *is* the depth.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

NEAREST_M = 1e-3
"""A hit nearer than this is the surface that the ray starts on."""


@dataclass(frozen=True)
class Paint:
    """Surface colours, one row per surface.

    A surface is one face of a box (6 rows each: -x +x -y +y -z +z), a sphere or a
    cylinder (1 row each), in that order.
    """

    first: Floats
    """(S, 3) linear RGB in 0..1."""
    second: Floats
    pattern: Ints
    """(S,) 0 plain, 1 checker, 2 stripes, 3 tiles, 4 windows, 5 speckle."""
    period_m: Floats


@dataclass(frozen=True)
class Scene:
    """What there is to see. Shapes: K boxes, M spheres, C cylinders."""

    box_center: Floats
    """(K, 3)."""
    box_half: Floats
    """(K, 3) half extents along the box's own axes."""
    box_yaw: Floats
    """(K,) radians about z."""
    box_inside: NDArray[np.bool_]
    """(K,) True: a room, seen from within."""
    sphere_center: Floats
    sphere_radius: Floats
    cylinder_base: Floats
    """(C, 3) centre of the lower end."""
    cylinder_radius: Floats
    cylinder_height: Floats
    paint: Paint
    light: Floats
    """(3,) position of a lamp, or direction towards the sun if `sun`."""
    sun: bool
    sky: Floats
    """(3,) linear RGB where a ray meets nothing."""


@dataclass(frozen=True)
class Hits:
    """Nearest hit of each of N rays."""

    distance: Floats
    """(N,) ray parameter; inf where nothing was hit."""
    surface: Ints
    """(N,) row of `Paint`; 0 where nothing was hit."""
    normal: Floats
    """(N, 3) unit length, towards the ray's origin."""
    uv: Floats
    """(N, 2) metres along the surface."""


def camera_rays(
    height_px: int, width_px: int, intrinsics: Floats, rotation: Floats
) -> Floats:
    """Directions (H x W, 3) through the pixel centres, one metre ahead per unit.

    Args:
        height_px: H.
        width_px: W.
        intrinsics: (3, 3) pinhole matrix in pixels.
        rotation: (3, 3) whose columns are the camera's right, ahead and up axes.
    """
    cols, rows = np.meshgrid(
        np.arange(width_px, dtype=np.float32), np.arange(height_px, dtype=np.float32)
    )
    right = (cols - intrinsics[0, 2]) / intrinsics[0, 0]
    down = (rows - intrinsics[1, 2]) / intrinsics[1, 1]
    local = np.stack((right, np.ones_like(right), -down), axis=-1).reshape(-1, 3)
    rays: Floats = local @ rotation.T
    return rays


def cast(scene: Scene, origin: Floats, rays: Floats) -> Hits:
    """Find the nearest surface along each ray.

    Args:
        scene: The primitives.
        origin: (3,) or (N, 3).
        rays: (N, 3), any length: distances are in units of it.
    """
    boxes, spheres = len(scene.box_yaw), len(scene.sphere_radius)
    distances = _all_distances(scene, origin, rays)
    nearest = distances.argmin(axis=0)
    distance = distances[nearest, np.arange(len(rays))]
    hit = np.isfinite(distance)
    point = origin + np.where(hit, distance, 0)[:, None] * rays

    surface = np.zeros(len(rays), np.int64)
    normal = np.zeros((len(rays), 3), np.float32)
    uv = np.zeros((len(rays), 2), np.float32)

    on = hit & (nearest < boxes)
    surface[on], normal[on], uv[on] = _box_surface(scene, nearest[on], point[on])

    on = hit & (nearest >= boxes) & (nearest < boxes + spheres)
    ball = nearest[on] - boxes
    outward = (point[on] - scene.sphere_center[ball]) / scene.sphere_radius[ball, None]
    surface[on], normal[on] = 6 * boxes + ball, outward
    uv[on] = _wrap(outward, scene.sphere_radius[ball], outward[:, 2])

    on = hit & (nearest >= boxes + spheres)
    tube = nearest[on] - boxes - spheres
    offset = point[on] - scene.cylinder_base[tube]
    radius = scene.cylinder_radius[tube]
    outward = offset / radius[:, None]
    outward[:, 2] = 0
    surface[on], normal[on] = 6 * boxes + spheres + tube, outward
    uv[on] = _wrap(outward, radius, offset[:, 2] / radius)
    return Hits(distance, surface, normal, uv)


def occluded(scene: Scene, origin: Floats, rays: Floats, reach: float) -> Floats:
    """1 where something solid lies on a ray before `reach`, else 0; shape (N,)."""
    distances = _all_distances(scene, origin, rays)
    distances[: len(scene.box_yaw)][scene.box_inside] = np.inf
    blocked: Floats = (distances.min(axis=0) < reach).astype(np.float32)
    return blocked


def _all_distances(scene: Scene, origin: Floats, rays: Floats) -> Floats:
    """(primitives, N) ray parameters of the nearest hits, inf for misses."""
    # Rays that are parallel to a face divide by this instead of by zero.
    rays = np.where(np.abs(rays) < 1e-7, np.float32(1e-7), rays)
    parts = [_box_distance(scene, origin, rays)]
    if len(scene.sphere_radius):
        parts.append(_sphere_distance(scene, origin, rays))
    if len(scene.cylinder_radius):
        parts.append(_cylinder_distance(scene, origin, rays))
    return np.concatenate(parts)


def _box_distance(scene: Scene, origin: Floats, rays: Floats) -> Floats:
    """Slab test in each box's own axes."""
    enter = np.full((len(scene.box_yaw), len(rays)), -np.inf, np.float32)
    leave = np.full_like(enter, np.inf)
    cos: Floats = np.cos(scene.box_yaw)[:, None]
    sin: Floats = np.sin(scene.box_yaw)[:, None]
    x, y, z = _offsets(origin, scene.box_center)
    dx, dy, dz = rays[:, 0], rays[:, 1], rays[:, 2]
    axes = (
        (cos * x + sin * y, cos * dx + sin * dy),
        (cos * y - sin * x, cos * dy - sin * dx),
        (z, dz[None]),
    )
    for axis, (start, slope) in enumerate(axes):
        # Along a turned box's own axes a ray may still be parallel to a face.
        inverse = np.float32(1) / np.where(slope == 0, np.float32(1e-7), slope)
        middle = -start * inverse
        half = np.abs(scene.box_half[:, axis, None] * inverse)
        np.maximum(enter, middle - half, out=enter)
        np.minimum(leave, middle + half, out=leave)
    miss = enter > leave
    enter[scene.box_inside] = leave[scene.box_inside]
    enter[miss | (enter < NEAREST_M)] = np.inf
    return enter


def _sphere_distance(scene: Scene, origin: Floats, rays: Floats) -> Floats:
    """Smaller root of |origin + t ray - centre|^2 = radius^2."""
    offset = origin - scene.sphere_center[:, None]
    a = (rays**2).sum(-1)
    # (M, 1, 3) for one origin, (M, N, 3) for one a ray.
    half_b: Floats = (offset * rays).sum(-1)
    c = (offset**2).sum(-1) - scene.sphere_radius[:, None] ** 2
    return _smaller_root(a, half_b, c)


def _cylinder_distance(scene: Scene, origin: Floats, rays: Floats) -> Floats:
    """The same in the horizontal plane, cut off at both ends (which stay open)."""
    x, y, z = _offsets(origin, scene.cylinder_base)
    dx, dy, dz = rays[:, 0], rays[:, 1], rays[:, 2]
    distance = _smaller_root(
        dx * dx + dy * dy,
        x * dx + y * dy,
        x * x + y * y - scene.cylinder_radius[:, None] ** 2,
    )
    height = z + np.where(np.isfinite(distance), distance, 0) * dz
    distance[(height < 0) | (height > scene.cylinder_height[:, None])] = np.inf
    return distance


def _smaller_root(a: Floats, half_b: Floats, c: Floats) -> Floats:
    discriminant = half_b * half_b - a * c
    root = (-half_b - np.sqrt(np.maximum(discriminant, 0))) / a
    distance: Floats = np.where(
        (discriminant > 0) & (root > NEAREST_M), root, np.float32(np.inf)
    )
    return distance


def _offsets(origin: Floats, points: Floats) -> tuple[Floats, Floats, Floats]:
    """Coordinates of `origin` (3,) or (N, 3) as seen from each of K points."""
    x, y, z = (origin[..., i] - points[:, i, None] for i in range(3))
    return x, y, z


def _box_surface(scene: Scene, box: Ints, point: Floats) -> tuple[Ints, Floats, Floats]:
    """Surface row, normal and uv of points that lie on the boxes numbered `box`."""
    offset = point - scene.box_center[box]
    cos, sin = np.cos(scene.box_yaw[box]), np.sin(scene.box_yaw[box])
    local = np.stack(
        (
            cos * offset[:, 0] + sin * offset[:, 1],
            cos * offset[:, 1] - sin * offset[:, 0],
            offset[:, 2],
        ),
        axis=-1,
    )
    # The face that was hit is the one whose plane is nearest.
    axis = (np.abs(local) - scene.box_half[box]).argmax(axis=-1)
    rows = np.arange(len(box))
    positive = local[rows, axis] > 0
    sign = np.where(positive ^ scene.box_inside[box], 1, -1).astype(np.float32)
    nx, ny, nz = ((axis == i) * sign for i in range(3))
    normal = np.stack((cos * nx - sin * ny, sin * nx + cos * ny, nz), axis=-1)
    uv = np.stack(
        (
            local[rows, np.where(axis == 0, 1, 0)],
            local[rows, np.where(axis == 2, 1, 2)],
        ),
        axis=-1,
    )
    return 6 * box + 2 * axis + positive, normal, uv


def _wrap(outward: Floats, radius: Floats, height: Floats) -> Floats:
    angle = np.arctan2(outward[:, 1], outward[:, 0])
    return np.stack((angle * radius, height * radius), axis=-1)
