import numpy as np
import pytest

from datamodules.batch import DataError
from datamodules.raycasting.raycast import Paint, Scene, camera_rays, cast, occluded
from datamodules.raycasting.scenes import ROOM_CAMERA, STREET_CAMERA, CameraRange, build
from datamodules.synthetic import SyntheticFrames

EYE = np.zeros(3, np.float32)
AHEAD = np.eye(3, dtype=np.float32)


def scene(boxes=(), spheres=(), cylinders=(), inside=False, yaw=0.0) -> Scene:
    box = np.array(boxes, np.float32).reshape(-1, 6)
    ball = np.array(spheres, np.float32).reshape(-1, 4)
    tube = np.array(cylinders, np.float32).reshape(-1, 5)
    surfaces = 6 * len(box) + len(ball) + len(tube)
    grey = np.full((surfaces, 3), 0.5, np.float32)
    zero = np.zeros(surfaces, np.int64)
    return Scene(
        box[:, :3],
        box[:, 3:],
        np.full(len(box), yaw, np.float32),
        np.full(len(box), inside),
        ball[:, :3],
        ball[:, 3],
        tube[:, :3],
        tube[:, 3],
        tube[:, 4],
        Paint(grey, grey, zero, np.ones(surfaces, np.float32)),
        np.array([0, 0, 1], np.float32),
        True,
        np.zeros(3, np.float32),
    )


def rays(*directions) -> np.ndarray:
    return np.array(directions, np.float32)


def test_cast__box_ahead_is_hit_on_its_near_face():
    hits = cast(scene(boxes=[(0, 5, 0, 1, 1, 1)]), EYE, rays((0, 1, 0), (1, 0, 0)))
    np.testing.assert_allclose(hits.distance, [4, np.inf])
    np.testing.assert_allclose(hits.normal[0], [0, -1, 0], atol=1e-6)


def test_cast__turned_box_matches_the_rotated_plane():
    # A cube turned by 45 degrees shows its edge, sqrt(2) before its centre.
    hits = cast(
        scene(boxes=[(0, 5, 0, 1, 1, 1)], yaw=np.pi / 4), EYE, rays((1e-6, 1, 0))
    )
    np.testing.assert_allclose(hits.distance, 5 - np.sqrt(2), rtol=1e-5)


def test_cast__room_is_hit_on_its_far_wall():
    hits = cast(scene(boxes=[(0, 0, 0, 2, 3, 1)], inside=True), EYE, rays((0, 1, 0)))
    np.testing.assert_allclose(hits.distance, 3)
    np.testing.assert_allclose(hits.normal[0], [0, -1, 0], atol=1e-6)


def test_cast__sphere_and_cylinder_by_hand():
    both = scene(spheres=[(0, 5, 0, 2)], cylinders=[(4, 0, -1, 1, 2)])
    hits = cast(both, EYE, rays((0, 1, 0), (1, 0, 0), (1, 0, 1)))
    # The last ray passes over the cylinder, 1 m high at 3 m.
    np.testing.assert_allclose(hits.distance, [3, 3, np.inf])


def test_occluded__only_within_reach():
    one = scene(spheres=[(0, 5, 0, 1)])
    assert occluded(one, EYE[None], rays((0, 1, 0)), 10.0) == 1
    assert occluded(one, EYE[None], rays((0, 1, 0)), 3.0) == 0


def test_camera_rays__depth_of_a_wall_is_constant_over_the_picture():
    """A ray's parameter is depth along the axis, not distance from the eye."""
    k = np.array([[50, 0, 31.5], [0, 50, 23.5], [0, 0, 1]], np.float32)
    wall = scene(boxes=[(0, 7, 0, 50, 1, 50)])
    hits = cast(wall, EYE, camera_rays(48, 64, k, AHEAD))
    np.testing.assert_allclose(hits.distance, 6, rtol=1e-6)


@pytest.mark.parametrize(
    ("domain", "low", "high"), [("rooms", 0.3, 10), ("streets", 1, 80)]
)
def test_frames__depths_fill_the_domain_and_reproject(domain, low, high):
    frames = SyntheticFrames(domain, "val", 8, (70, 98))
    depths = np.concatenate([frames[i].depth.ravel() for i in range(8)])
    known = depths[(depths > 0) & (depths < high)]
    assert known.min() > low
    assert known.max() > 0.5 * high
    assert len(known) > 0.5 * depths.size


def test_frames__same_seed_and_index_same_frame():
    one, two = (SyntheticFrames("rooms", "train", 4, (70, 98), seed=3) for _ in "12")
    np.testing.assert_array_equal(one[2].image, two[2].image)
    np.testing.assert_array_equal(one[2].depth, two[2].depth)


@pytest.mark.parametrize(
    "changed", [{"seed": 4}, {"split": "val"}, {"domain": "streets"}]
)
def test_frames__other_stream_other_frame(changed):
    given = {"domain": "rooms", "split": "train", "seed": 3}
    one = SyntheticFrames(**given, length=1, size=(70, 98))[0]
    two = SyntheticFrames(**{**given, **changed}, length=1, size=(70, 98))[0]
    assert (one.depth != two.depth).mean() > 0.5


def test_build__floor_lies_at_camera_height():
    """Depth of the floor must agree with the pose: back-projected floor is at z = 0."""
    rng = np.random.default_rng(0)
    view = build("streets", STREET_CAMERA, rng)
    k = np.array([[60, 0, 48.5], [0, 60, 34.5], [0, 0, 1]], np.float32)
    directions = camera_rays(70, 98, k, view.rotation)
    hits = cast(view.scene, view.origin, directions)
    points = view.origin + hits.distance[:, None] * directions
    ground = (
        np.isfinite(hits.distance) & (hits.normal[:, 2] > 0.99) & (hits.surface < 6)
    )
    assert ground.sum() > 100
    np.testing.assert_allclose(points[ground, 2], 0, atol=2e-3)


def test_camera_range__impossible_field_of_view_is_refused():
    with pytest.raises(DataError, match="fov_deg"):
        CameraRange((170, 190), (1, 2), (0, 0), (0, 0), (1, 1), (0, 0))
    assert ROOM_CAMERA.fov_deg[1] < 180
