"""Pictures of invented worlds: depth of known shapes, light, film, repetition."""

import numpy as np
import pytest

from datamodules import extras
from datamodules.extras import ExtraError
from datamodules.rendering.film import Film, expose
from datamodules.rendering.indoors import Pose
from datamodules.rendering.light import render
from datamodules.rendering.materials import Material, Pattern, random_material
from datamodules.rendering.meshes import (
    ball,
    blob,
    box,
    capsule,
    extruded,
    joined,
    leaves,
    prism,
    sheet,
    tube,
)
from datamodules.rendering.noise import LEVELS, SIDE, TILES, sample, tiles
from datamodules.rendering.pictures import PLACES, _rays, picture
from datamodules.rendering.world import Lamp, Traced, World

WHITE = Material((0.8,) * 3, (0.8,) * 3, (0.8,) * 3, contrast=0.0, stains=0.0)
EYE = np.zeros(3, np.float32)


def ahead(rows: int = 9, cols: int = 11, focal_px: float = 10.0) -> np.ndarray:
    return _rays(rows, cols, focal_px, Pose(0, 0, 0, 0, 0, 0))


def world_of(*meshes) -> World:
    world = World()
    for mesh in meshes:
        world.add(mesh, WHITE)
    return world


def test_nearest__of_a_wall_is_its_depth_not_its_distance():
    seen = Traced(world_of(box(50, 0.2, 50).moved(0, 3.1, -25))).nearest(EYE, ahead())
    assert seen.hit.all()
    np.testing.assert_allclose(seen.distance, 3.0, rtol=1e-5)
    np.testing.assert_allclose(seen.normal, [[0, -1, 0]] * 99, atol=1e-6)


def test_nearest__of_a_ball_follows_its_equation():
    rays = ahead()
    seen = Traced(world_of(ball(1.0, 200).moved(0, 5, -1))).nearest(EYE, rays)
    a, b = (rays**2).sum(1), 5 * rays[:, 1]
    root = b * b - a * (25 - 1)
    np.testing.assert_array_equal(seen.hit, root > 0)
    wanted = (b - np.sqrt(np.maximum(root, 0))) / a
    # Facets of a ball with 200 sides: r (1 - cos(pi / 200)) is 1.2e-4, at the rim more.
    np.testing.assert_allclose(seen.distance, wanted[seen.hit], atol=3e-3)


def test_rays__turn_with_the_camera():
    corner = _rays(3, 3, 1.0, Pose(0, 0, 0, 0, 0, 0))
    np.testing.assert_allclose(corner[4], [0, 1, 0], atol=1e-7)
    np.testing.assert_allclose(corner[0], [-1, 1, 1], atol=1e-7)
    left = _rays(3, 3, 1.0, Pose(0, 0, 0, np.pi / 2, 0, 0))[4]
    np.testing.assert_allclose(left, [-1, 0, 0], atol=1e-7)
    up = _rays(3, 3, 1.0, Pose(0, 0, 0, 0, np.pi / 2, 0))[4]
    np.testing.assert_allclose(up, [0, 0, 1], atol=1e-7)


@pytest.mark.parametrize("place", PLACES)
def test_picture__is_a_function_of_the_generator(place):
    size = (28, 42)
    one, two, other = (
        picture(place, size, Film(), np.random.default_rng(seed)) for seed in (5, 5, 6)
    )
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(one[0], other[0])
    rgb, depth, intrinsics = one
    assert rgb.shape == (*size, 3)
    assert rgb.dtype == np.uint8
    assert depth.shape == size
    assert depth.dtype == np.float32
    assert np.isfinite(depth).all()
    assert (depth >= 0).all()
    assert intrinsics[0, 0] == intrinsics[1, 1]
    assert list(intrinsics[:2, 2]) == [20.5, 13.5]


def test_picture__of_rooms_has_no_sky_and_of_streets_reaches_far():
    rng = np.random.default_rng(0)
    rooms = [picture("room", (28, 42), Film(), rng)[1] for _ in range(6)]
    streets = [picture("street", (28, 42), Film(), rng)[1] for _ in range(6)]
    assert all((room > 0).mean() > 0.99 for room in rooms)
    assert max(room.max() for room in rooms) < 17
    assert max(street.max() for street in streets) > 40


def test_render__a_slab_throws_a_shadow_and_corners_are_dimmer():
    floor = box(20, 20, 0.1).moved(z=-0.1)
    slab = box(1, 1, 0.05).moved(z=1.0)
    world = world_of(floor, slab)
    world.lamps = [Lamp((0.0, 0.0, 1.0), 0.0, (1.0, 1.0, 1.0), sun=True)]
    world.ambient = (0.2, 0.2, 0.2)
    eye = np.array([0.0, -4.0, 0.5], np.float32)
    found = []
    for target in ([0, 0, 0], [3, 3, 0]):
        # Two rays: how far apart they are tells what a pixel covers.
        rays = np.array([target, target] - eye, np.float32)
        rays[1] += 1e-4
        light, depth = render(
            world, Traced(world), eye, rays, (1, 2), np.random.default_rng(0)
        )
        np.testing.assert_allclose(depth, 1.0, rtol=1e-3)
        found.append(light.mean())
    # Under the slab nothing but what comes around, 0.2; in the sun 1 more; both times
    # 0.8 for the paint.
    assert found[0] < 0.17
    assert 0.8 < found[1] < 0.97


def test_meshes__stand_on_the_floor_and_have_their_size():
    rng = np.random.default_rng(0)
    sizes = {
        "box": (box(2, 4, 3), (2, 4, 3)),
        "prism": (prism(2, 4, 3), (2, 4, 3)),
        "tube": (tube(0.5, 2, 64), (1, 1, 2)),
        "ball": (ball(0.5, 64), (1, 1, 1)),
        "capsule": (capsule(0.5, 3, 64), (1, 1, 3)),
        "extruded": (extruded([(-1, 0), (1, 0), (0, 2)], 3), (3, 2, 2)),
        "sheet": (sheet(2, 3, np.zeros((4, 5)), upright=True), (2, 0, 3)),
    }
    for name, (mesh, size) in sizes.items():
        low, high = mesh.vertices.min(0), mesh.vertices.max(0)
        np.testing.assert_allclose(high - low, size, atol=1e-2, err_msg=name)
        assert abs(low[2]) < 1e-6, name
        assert mesh.faces.max() < len(mesh.vertices), name
    for mesh in (blob(1, rng), leaves((1, 2, 3), 50, 0.1, rng)):
        assert np.isfinite(mesh.vertices).all()
    both = joined([box(1, 1, 1), ball(1)])
    assert both.faces.max() == len(both.vertices) - 1


def test_noise__fades_to_its_mean_where_a_pixel_covers_a_tile():
    assert tiles().shape == (TILES, sum((SIDE >> k) ** 2 for k in range(LEVELS)))
    rng = np.random.default_rng(0)
    uv = rng.uniform(-5, 5, (400, 2)).astype(np.float32)
    which = np.full(400, 3)
    fine = sample(which, uv, np.full(400, 1e-4, np.float32))
    coarse = sample(which, uv, np.ones(400, np.float32))
    assert fine.std() > 0.1
    np.testing.assert_allclose(coarse, tiles()[3, -1], atol=1e-6)
    np.testing.assert_allclose(tiles()[3, : SIDE**2].mean(), coarse[0], atol=1e-5)
    moved = sample(which, uv + np.float32(2), np.full(400, 1e-4, np.float32))
    np.testing.assert_allclose(moved, fine, atol=2e-3)  # tiles repeat


@pytest.mark.parametrize("pattern", Pattern)
def test_picture__every_pattern_stays_within_light(pattern):
    rng = np.random.default_rng(int(pattern))
    world = World(lamps=[Lamp((0, 0, 2), 0.1, (1, 1, 1))])
    made = random_material(rng, patterns=(pattern,), period_m=(0.1, 0.3))
    world.add(box(4, 0.2, 4).moved(0, 2, -2), made)
    light, _ = render(world, Traced(world), EYE, ahead(30, 40, 30.0), (30, 40), rng)
    assert np.isfinite(light).all()
    assert (light >= 0).all()
    if pattern in (Pattern.CHECKER, Pattern.BRICKS, Pattern.WINDOWS):
        assert light.std() > 0.005


def test_film__brings_any_light_to_a_middle_grey():
    film = Film(exposure=(0, 0), noise=(0, 0), contrast=(1, 1), vignette=(0, 0))
    for power in (1e-2, 1.0, 1e2):
        light = np.full((16, 16, 3), power, np.float32)
        shown = expose(light, film, np.random.default_rng(0))
        assert 90 < shown.mean() < 135


def test_traced__without_embreex_says_what_to_install(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ExtraError, match=r'pip install "lava-depth\[worlds\]"'):
        Traced(world_of(box(1, 1, 1)))
