"""One picture of an invented world with its exact depth."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from datamodules.raycasting.raycast import camera_rays
from datamodules.raycasting.scenes import rotation
from datamodules.rendering.film import Film, expose
from datamodules.rendering.indoors import Pose, room, table_top
from datamodules.rendering.light import render
from datamodules.rendering.outdoors import street
from datamodules.rendering.world import Seen, Traced

Floats = NDArray[np.floating]
Rng = np.random.Generator
Place = Literal["room", "table", "street"]
MAKERS = {"room": room, "table": table_top, "street": street}
FOV_DEG: dict[Place, tuple[float, float]] = {
    "room": (45, 90),
    "table": (40, 75),
    "street": (45, 100),
}
"""Of the longer side."""
VERSION = 1
"""Of what is drawn: kept frames of another one are made again."""
NEAREST_M = 0.25
TRIES = 6


def picture(
    place: Place, size: tuple[int, int], film: Film, rng: Rng
) -> tuple[NDArray[np.uint8], Floats, Floats]:
    """RGB (H, W, 3), depth (H, W) in metres with 0 for sky, intrinsics (3, 3).

    Drawn again while there is little to see (`_worth_it`).
    """
    rows, cols = size
    for attempt in range(TRIES):
        world, pose = MAKERS[place](rng)
        fov = np.radians(rng.uniform(*FOV_DEG[place]))
        focal_px = max(rows, cols) / 2 / np.tan(fov / 2)
        rays = _rays(rows, cols, focal_px, pose)
        traced = Traced(world)
        origin = np.array((pose.x, pose.y, pose.z), np.float32)
        few = traced.nearest(origin, np.ascontiguousarray(rays[:: 7 * cols // 5 + 1]))
        if attempt == TRIES - 1 or _worth_it(few, rng):
            break
    light, depth = render(world, traced, origin, rays, size, rng)
    rgb = expose(light.reshape(rows, cols, 3), film, rng)
    return rgb, depth.reshape(rows, cols), _intrinsics(rows, cols, focal_px)


def _worth_it(seen: Seen, rng: Rng) -> bool:
    """Not from inside a thing, not only sky, and seldom one bare surface."""
    if seen.hit.mean() < 0.3 or (seen.distance < NEAREST_M).mean() > 0.02:
        return False
    varied = bool(np.log(seen.distance).std() > 0.25)
    return varied or rng.uniform() < 0.15


def _rays(rows: int, cols: int, focal_px: float, pose: Pose) -> Floats:
    """(H x W, 3) through the pixels' centres, one metre ahead per unit."""
    # Its roll turns the picture the other way round.
    turned = rotation(pose.heading, pose.pitch, -pose.roll)
    rays = camera_rays(rows, cols, _intrinsics(rows, cols, focal_px), turned)
    return np.ascontiguousarray(rays)


def _intrinsics(rows: int, cols: int, focal_px: float) -> NDArray[np.float32]:
    """(3, 3) of a camera that looks through the picture's middle."""
    return np.array(
        [[focal_px, 0, (cols - 1) / 2], [0, focal_px, (rows - 1) / 2], [0, 0, 1]],
        np.float32,
    )


PLACES = get_args(Place)
