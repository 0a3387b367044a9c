"""Collect painted primitives one by one, then turn them into a `Scene`."""

from dataclasses import dataclass, field

import numpy as np

from datamodules.raycasting.raycast import Paint, Scene

PLAIN, CHECKER, STRIPES, TILES, WINDOWS, SPECKLE = range(6)
Rng = np.random.Generator
Point = tuple[float, float, float]
Coat = tuple[float, ...]
"""One row of `Paint`: two RGB colours, the pattern, its period in metres."""


@dataclass
class SceneBuilder:
    """Primitives, their coats, the light and the sky, in world metres."""

    rng: Rng
    boxes: list[tuple[float, ...]] = field(default_factory=list)
    spheres: list[tuple[float, ...]] = field(default_factory=list)
    cylinders: list[tuple[float, ...]] = field(default_factory=list)
    box_paint: list[Coat] = field(default_factory=list)
    sphere_paint: list[Coat] = field(default_factory=list)
    cylinder_paint: list[Coat] = field(default_factory=list)
    light: Point = (0.0, 0.0, 1.0)
    sun: bool = False
    sky: Point = (0.0, 0.0, 0.0)

    def paint(self, pattern: int, period_m: float = 0.4, grey: float = 0.0) -> Coat:
        """Two random colours; `grey` 1 takes all saturation out of them."""
        colours = self.rng.uniform(0.08, 0.85, (2, 3))
        mean = colours.mean(axis=1, keepdims=True)
        colours = colours * (1 - grey) + mean * grey
        return (*colours[0], *colours[1], pattern, period_m)

    def box(
        self,
        center: Point,
        half: Point,
        yaw: float,
        paint: Coat,
        *,
        ends: Coat | None = None,
        bottom: Coat | None = None,
        inside: bool = False,
    ) -> None:
        """Add a box; `ends` paints its top (and bottom, unless that is given)."""
        self.boxes.append((*center, *half, yaw, float(inside)))
        ends = ends or paint
        self.box_paint += [paint] * 4 + [bottom or ends, ends]

    def sphere(
        self,
        center: Point,
        radius: float,
        paint: Coat,
    ) -> None:
        self.spheres.append((*center, radius))
        self.sphere_paint.append(paint)

    def cylinder(
        self,
        base: Point,
        radius: float,
        height: float,
        paint: Coat,
    ) -> None:
        self.cylinders.append((*base, radius, height))
        self.cylinder_paint.append(paint)

    def scene(self) -> Scene:
        box = np.array(self.boxes, np.float32).reshape(-1, 8)
        ball = np.array(self.spheres, np.float32).reshape(-1, 4)
        tube = np.array(self.cylinders, np.float32).reshape(-1, 5)
        rows = self.box_paint + self.sphere_paint + self.cylinder_paint
        paint = np.array(rows, np.float32)
        light = np.array(self.light, np.float32)
        return Scene(
            box[:, :3],
            box[:, 3:6],
            box[:, 6],
            box[:, 7] > 0,
            ball[:, :3],
            ball[:, 3],
            tube[:, :3],
            tube[:, 3],
            tube[:, 4],
            Paint(
                paint[:, :3], paint[:, 3:6], paint[:, 6].astype(np.int64), paint[:, 7]
            ),
            light / np.linalg.norm(light) if self.sun else light,
            self.sun,
            np.array(self.sky, np.float32),
        )
