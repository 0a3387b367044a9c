"""Things with materials, lights and a sky; rays against them by Embree."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.extras import check_installed
from datamodules.rendering.materials import Colour, Material, table
from datamodules.rendering.meshes import Mesh, joined

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Lamp:
    """A light with a size, whose shadows are soft."""

    place: tuple[float, float, float]
    """Metres; of the sun the direction towards it, of length 1."""
    size_m: float
    """Radius; of the sun in radians."""
    colour: Colour
    sun: bool = False


@dataclass
class World:
    """What there is; z is up, metres."""

    things: list[tuple[Mesh, Material]] = field(default_factory=list)
    lamps: list[Lamp] = field(default_factory=list)
    ambient: Colour = (0.3, 0.3, 0.3)
    """Light from above; from below comes half of it."""
    sky: Colour = (0.4, 0.5, 0.7)
    clouds: float = 0.0
    haze_m: float = np.inf
    """Metres at which air has taken 63 % of a colour."""

    def add(self, mesh: Mesh, material: Material) -> None:
        self.things.append((mesh, material))


@dataclass(frozen=True)
class Seen:
    """The nearest surface along each of N rays; only rays that met one count."""

    hit: NDArray[np.bool_]
    """(N,)."""
    distance: Floats
    """(H,) ray parameter, of the H rays that met something."""
    thing: NDArray[np.int64]
    """(H,) number of the thing."""
    local: Floats
    """(H, 3) metres from the thing's middle."""
    normal: Floats
    """(H, 3) unit length, towards the viewer."""


class Traced:
    """A world that rays can be cast into.

    Raises:
        ExtraError: Without the package that does it.
    """

    def __init__(self, world: World) -> None:
        check_installed("rendering worlds", "worlds", "embreex")
        from embreex.mesh_construction import (  # type: ignore[import-untyped]
            TriangleMesh,
        )
        from embreex.rtcore_scene import (  # type: ignore[import-untyped]
            EmbreeScene,
        )

        meshes = [mesh for mesh, _ in world.things]
        whole = joined(meshes)
        counts = [len(mesh.faces) for mesh in meshes]
        self.thing_of = np.repeat(np.arange(len(meshes)), counts)
        self.middles = np.stack([_middle(mesh) for mesh in meshes])
        self.rows = table([material for _, material in world.things])
        self.scene: Any = EmbreeScene()
        TriangleMesh(self.scene, whole.vertices, whole.faces)

    def nearest(self, origin: Floats, rays: Floats) -> Seen:
        """What rays (N, 3) of any length from `origin` (3,) meet first."""
        start = np.broadcast_to(origin, rays.shape).astype(np.float32)
        found = self.scene.run(np.ascontiguousarray(start), rays, output=1)
        hit = found["primID"] >= 0
        distance = found["tfar"][hit]
        normal = found["Ng"][hit]
        normal /= np.sqrt(np.maximum(dot(normal, normal), 1e-30))[:, None]
        normal *= np.where(dot(normal, rays[hit]) > 0, -1, 1)[:, None]
        thing = self.thing_of[found["primID"][hit]]
        point = origin + distance[:, None] * rays[hit]
        local = (point - self.middles[thing]).astype(np.float32)
        return Seen(hit, distance, thing, local, normal)

    def blocked(self, start: Floats, rays: Floats) -> NDArray[np.bool_]:
        """Whether something lies on rays (N, 3) before their ends."""
        ends = np.ones(len(rays), np.float32)
        found = self.scene.run(
            np.ascontiguousarray(start, np.float32),
            np.ascontiguousarray(rays, np.float32),
            ends,
            query="OCCLUDED",
        )
        met: NDArray[np.bool_] = found >= 0
        return met


def dot(one: Floats, two: Floats) -> Floats:
    """(N,) products of the rows of (N, 3) and (N, 3)."""
    products: Floats = np.einsum("ij,ij->i", one, two)
    return products


def _middle(mesh: Mesh) -> Floats:
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    middle: Floats = (low + high) / 2
    return middle
