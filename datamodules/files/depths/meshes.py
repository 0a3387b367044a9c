"""Write a depth map and its picture as a textured mesh that browsers show: .glb."""

import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datamodules.errors import DataError
from datamodules.files.whole import write_bytes

MAX_VERTICES = 640
"""Along the longer side: a viewer in a browser moves 0.6 million triangles."""
MAX_TEXTURE_PX = 2048
"""Likewise; what every WebGL has."""
TEAR = 1.15
"""Where depth changes by this factor from one vertex to the next, there is an edge of
something and no surface: a floor seen from 1.5 m changes by less up to 80 m."""


def write_glb(
    path: Path,
    depth: NDArray[np.float32],
    image: NDArray[np.uint8],
    intrinsics: tuple[float, float, float, float],
) -> None:
    """Write what the camera sees as a surface, torn where depth leaps.

    glTF's axes, in metres: x right, y up, and the camera at the origin looks along -z.

    Args:
        path: Where to.
        depth: (H, W) metres along the optical axis.
        image: (H, W, 3) RGB: the texture.
        intrinsics: fx, fy, cx, cy in pixels of `image`.

    Raises:
        DataError: If no three neighbours have depths that belong together.
    """
    # Part of an extra, and its import takes 0.3 s.
    import trimesh
    from trimesh.visual.material import PBRMaterial
    from trimesh.visual.texture import TextureVisuals

    fx, fy, cx, cy = intrinsics
    rows, cols = _places(depth.shape)
    z = depth[np.ix_(rows, cols)].astype(np.float64)
    x = (cols[None] - cx) / fx * z
    y = (rows[:, None] - cy) / fy * z
    faces = _faces(z)
    if not len(faces):
        raise DataError(f"{path.name}: nothing in this depth map is a surface")
    height, width = depth.shape
    # Trimesh counts v upwards, from the middle of no pixel.
    u = np.broadcast_to((cols[None] + 0.5) / width, z.shape)
    v = np.broadcast_to(1 - (rows[:, None] + 0.5) / height, z.shape)
    mesh = trimesh.Trimesh(
        np.stack([x, -y, -z], -1).reshape(-1, 3),
        faces,
        visual=TextureVisuals(  # type: ignore[no-untyped-call]
            uv=np.stack([u, v], -1).reshape(-1, 2),
            material=PBRMaterial(  # type: ignore[no-untyped-call]
                baseColorTexture=_texture(image),
                metallicFactor=0.0,
                roughnessFactor=1.0,
                doubleSided=True,
            ),
        ),
        process=False,
    )
    mesh.remove_unreferenced_vertices()
    content = mesh.export(file_type="glb")
    assert isinstance(content, bytes)
    write_bytes(path, content)


def _places(shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the pixels that become vertices."""
    step = max(max(shape) / MAX_VERTICES, 1)
    rows, cols = (
        np.unique(np.linspace(0, n - 1, max(round(n / step), 2)).round().astype(int))
        for n in shape
    )
    return rows, cols


def _faces(z: NDArray[np.float64]) -> NDArray[np.int64]:
    """Triangles (F, 3) of vertices whose depths belong together, front outwards."""
    number = np.arange(z.size).reshape(z.shape)
    corners = [number[:-1, :-1], number[1:, :-1], number[:-1, 1:], number[1:, 1:]]
    upper_left, lower_left, upper_right, lower_right = (c.ravel() for c in corners)
    faces = np.concatenate(
        [
            np.stack([upper_left, lower_left, upper_right], -1),
            np.stack([upper_right, lower_left, lower_right], -1),
        ]
    )
    near = z.ravel()[faces].min(1)
    far = z.ravel()[faces].max(1)
    found: NDArray[np.int64] = faces[(near > 0) & (far <= TEAR * near)]
    return found


def _texture(image: NDArray[np.uint8]) -> Image.Image:
    """The picture as a JPEG of a size that every browser takes."""
    zoom = MAX_TEXTURE_PX / max(image.shape[:2])
    if zoom < 1:
        size = (round(image.shape[1] * zoom), round(image.shape[0] * zoom))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=92)
    return Image.open(file)
