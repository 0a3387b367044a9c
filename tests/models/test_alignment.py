"""Against NumPy's own least squares and median, image by image."""

import numpy as np
import pytest
import torch

from models.alignment import aligned

MAX = 10.0


def images(relation):
    generator = torch.Generator().manual_seed(1)
    target = torch.rand((4, 1, 6, 7), generator=generator).double() * 5 + 1
    noise = 1 + 0.1 * torch.randn(target.shape, generator=generator)
    valid = torch.rand(target.shape, generator=generator) > 0.4
    return relation(target) * noise, target, valid


def fit(p, g):
    matrix = np.stack([p, np.ones_like(p)], 1)
    return np.linalg.lstsq(matrix, g, rcond=None)[0]


def reference(p, g, v, how):
    inside_p, inside_g = p[v].numpy(), g[v].numpy()
    p = p.numpy()
    if how == "median":
        return p * np.median(inside_g) / np.median(inside_p)
    if how == "disparity":
        scale, shift = fit(inside_p, 1 / inside_g)
        return 1 / np.maximum(scale * p + shift, 1 / MAX)
    scale, shift = fit(inside_p, inside_g)
    return scale * p + shift


@pytest.mark.parametrize(
    ("how", "relation"),
    [
        ("median", lambda g: 3 * g),
        ("scale_shift", lambda g: 0.2 * g - 3),
        ("disparity", lambda g: 7 / g + 4),
        ("disparity", lambda g: -2 / g + 4),
    ],
)
def test_aligned__equals_numpy(how, relation):
    p, g, v = images(relation)
    ours = aligned(p, g, v, how, MAX)
    for i in range(len(p)):
        expected = reference(p[i], g[i], v[i], how)
        np.testing.assert_allclose(ours[i].numpy(), expected, rtol=1e-9)


def test_scale_shift__a_falling_fit_falls_back_to_the_median():
    p, g, v = images(lambda g: 20 - g)
    assert torch.equal(
        aligned(p, g, v, "scale_shift", MAX), aligned(p, g, v, "median", MAX)
    )


@pytest.mark.parametrize("how", ["median", "scale_shift", "disparity"])
def test_aligned__removes_what_it_fits_and_leaves_empty_images_alone(how):
    target = torch.linspace(1, 8, 42).double().view(1, 1, 6, 7).repeat(3, 1, 1, 1)
    valid = torch.ones_like(target, dtype=torch.bool)
    valid[1] = False
    p = 4 * target if how == "median" else 4 * target + 3
    if how == "disparity":
        p = 4 / target + 3
    ours = aligned(p, target, valid, how, MAX)
    torch.testing.assert_close(ours[[0, 2]], target[[0, 2]], rtol=1e-9, atol=1e-9)
    assert torch.equal(ours[1], p[1])


def test_aligned__a_constant_prediction_is_no_division_by_zero():
    _, g, v = images(lambda g: g)
    for how in ("median", "scale_shift", "disparity"):
        assert aligned(torch.zeros_like(g), g, v, how, MAX).isfinite().all()
