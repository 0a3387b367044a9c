"""Textured meshes: where their vertices are, where they are torn, what they show."""

import cv2
import numpy as np
import pytest
import trimesh

from datamodules.errors import DataError
from datamodules.files.depths.meshes import MAX_TEXTURE_PX, MAX_VERTICES, write_glb

CAMERA = (50.0, 52.0, 19.5, 11.0)


def read(path):
    """The mesh of a file, by another reader than wrote it here."""
    scene = trimesh.load(path)
    (mesh,) = scene.geometry.values()
    return mesh


def test_wall__is_where_its_camera_saw_it(tmp_path):
    """glTF's axes: y up, the camera looks along -z; one pixel, one vertex."""
    depth = np.full((30, 40), 2.0, np.float32)
    write_glb(tmp_path / "a.glb", depth, np.zeros((30, 40, 3), np.uint8), CAMERA)
    mesh = read(tmp_path / "a.glb")
    fx, fy, cx, cy = CAMERA
    rows, cols = np.mgrid[:30, :40]
    expected = np.stack(
        [(cols - cx) / fx * 2, -(rows - cy) / fy * 2, -2 + 0 * rows], -1
    )
    np.testing.assert_allclose(mesh.vertices, expected.reshape(-1, 3), atol=1e-6)
    assert len(mesh.faces) == 2 * 29 * 39
    # Seen from the camera, fronts show: their normals point back to it.
    np.testing.assert_allclose(mesh.face_normals, [[0, 0, 1]] * len(mesh.faces))


def test_edge__is_torn_and_a_floor_is_not(tmp_path):
    rows = np.arange(20, 60, dtype=np.float32)[:, None]
    floor = np.repeat(100 / rows, 30, 1)  # from 5 m to 1.7 m
    write_glb(tmp_path / "f.glb", floor, np.zeros((40, 30, 3), np.uint8), CAMERA)
    assert len(read(tmp_path / "f.glb").faces) == 2 * 39 * 29
    step = np.full((40, 30), 2.0, np.float32)
    step[:, 15:] = 4.0
    step[:3] = 0.0  # nothing known
    write_glb(tmp_path / "s.glb", step, np.zeros((40, 30, 3), np.uint8), CAMERA)
    assert len(read(tmp_path / "s.glb").faces) == 2 * 36 * 28


def test_texture__shows_the_picture_at_its_vertices(tmp_path):
    image = np.zeros((64, 96, 3), np.uint8)
    image[:32, :48], image[32:, 48:] = (250, 0, 0), (0, 0, 250)
    depth = np.full((64, 96), 3.0, np.float32)
    write_glb(tmp_path / "t.glb", depth, image, (80, 80, 47.5, 31.5))
    mesh = read(tmp_path / "t.glb")
    texture = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"))
    assert texture.shape == image.shape
    uv = mesh.visual.uv.reshape(64, 96, 2)
    for row, col in ((5, 5), (60, 90), (5, 90)):
        # Trimesh turns glTF's v around again.
        u, v = uv[row, col, 0] * 96, (1 - uv[row, col, 1]) * 64
        assert (int(u), int(v)) == (col, row)
        found = texture[int(v), int(u)].astype(int)
        assert np.abs(found - image[row, col]).max() < 30  # JPEG's


def test_large_picture__makes_a_mesh_that_browsers_move(tmp_path):
    depth = np.full((1500, 3000), 5.0, np.float32)
    image = np.zeros((1500, 3000, 3), np.uint8)
    write_glb(tmp_path / "l.glb", depth, image, (2000, 2000, 1500, 750))
    mesh = read(tmp_path / "l.glb")
    assert len(mesh.vertices) == MAX_VERTICES * MAX_VERTICES // 2
    assert mesh.visual.material.baseColorTexture.width == MAX_TEXTURE_PX
    width = np.ptp(mesh.vertices[:, 0])
    assert width == pytest.approx(2999 / 2000 * 5)


def test_nothing_known__is_an_error(tmp_path):
    empty = np.zeros((20, 20), np.float32)
    with pytest.raises(DataError, match="surface"):
        write_glb(tmp_path / "e.glb", empty, cv2.merge([empty] * 3), CAMERA)
    assert not list(tmp_path.iterdir())
