"""Boundary F1 against loops over pixels, neighbours and thresholds."""

import json

import numpy as np
import pytest
import torch

from datamodules.errors import DataError
from models.boundary import BoundaryF1, boundary_f1


def images(count=5, size=(9, 11)):
    """Blocks of depth, and a prediction that moves and softens their edges."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand((count, 1, 3, 4), generator=generator) * 4 + 1
    target = torch.nn.functional.interpolate(coarse, size, mode="nearest")
    moved = torch.roll(target, 1, -1) * 0.3 + target * 0.7
    noise = torch.rand(target.shape, generator=generator) * 0.1
    return moved * (1 + noise), target, torch.rand(target.shape) > 0.1


def by_loops(p, g, v):
    """Of one image (H, W): F1 and whether the truth has an edge."""
    rows, cols = g.shape
    thresholds = np.linspace(1.05, 1.25, 10)
    inverse_p, inverse_g = 1 / p, 1 / g
    scores, edged = [], False
    for t in thresholds:
        precisions, recalls = [], []
        for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            hits = found = true = 0
            for i in range(rows):
                for j in range(cols):
                    k, m = i + down, j + right
                    if not (0 <= k < rows and 0 <= m < cols and v[i, j] and v[k, m]):
                        continue
                    is_found = inverse_p[i, j] / inverse_p[k, m] > t
                    is_true = inverse_g[i, j] / inverse_g[k, m] > t
                    found, true = found + is_found, true + is_true
                    hits += is_found and is_true
            edged |= true > 0
            precisions.append(hits / found if found else 0.0)
            recalls.append(hits / true if true else 0.0)
        p_mean, r_mean = np.mean(precisions), np.mean(recalls)
        both = p_mean + r_mean
        scores.append(2 * p_mean * r_mean / both if both else 0.0)
    return np.average(scores, weights=thresholds), edged


def expected(depth, target, valid):
    every = zip(*(x[:, 0].numpy() for x in (depth, target, valid)), strict=True)
    with np.errstate(all="ignore"):
        return [by_loops(p.astype(float), g.astype(float), v) for p, g, v in every]


def test_boundary_f1__equals_loops_over_pixels():
    given = images()
    f1, edged = boundary_f1(*given)
    reference = expected(*given)
    assert 0.1 < min(score for score, _ in reference) < 0.9
    np.testing.assert_allclose(f1, [score for score, _ in reference], rtol=1e-12)
    assert edged.tolist() == [has for _, has in reference]


def test_boundary_f1__does_not_depend_on_scale():
    depth, target, valid = images()
    torch.testing.assert_close(
        boundary_f1(4 * depth, target, valid), boundary_f1(depth, target, valid)
    )


def test_boundary_f1__what_is_not_valid_has_no_influence():
    depth, target, valid = images()
    dirty = torch.where(valid, depth, -1.0), torch.where(valid, target, torch.nan)
    torch.testing.assert_close(
        boundary_f1(*dirty, valid), boundary_f1(depth, target, valid), rtol=0, atol=0
    )


def test_boundary_f1__of_the_truth_itself_is_one():
    """Where every direction has edges of every ratio."""
    rows, cols = torch.meshgrid(torch.arange(6), torch.arange(7), indexing="ij")
    target = 1.0 + (rows // 2 + cols // 2)[None, None] % 2
    f1, _ = boundary_f1(target, target, torch.ones_like(target, dtype=torch.bool))
    torch.testing.assert_close(f1, torch.ones_like(f1))


def test_metric__is_the_mean_over_images_with_edges_in_any_batches():
    depth, target, valid = images()
    target[2] = 3.0
    reference = expected(depth, target, valid)
    metric = BoundaryF1()
    for part in (slice(0, 2), slice(2, 3), slice(3, 5)):
        metric.update(depth[part], target[part], valid[part])
    scores = metric.scores()
    mean = np.mean([score for score, edged in reference if edged])
    assert scores.f1 == pytest.approx(mean, rel=1e-6)
    assert (scores.n_images, scores.n_without_edges) == (4, 1)
    assert metric.images == 0


def test_metric__states_add_up_over_processes():
    """Every state is a sum: two processes' states added are one process's."""
    depth, target, valid = images()
    one, *two = (BoundaryF1() for _ in range(3))
    one.update(depth, target, valid)
    for metric, part in zip(two, (slice(0, 2), slice(2, 5)), strict=True):
        metric.update(depth[part], target[part], valid[part])
    assert {f.__name__ for f in one._reductions.values()} == {"dim_zero_sum"}
    for name in one._reductions:
        total = sum(getattr(metric, name) for metric in two)
        torch.testing.assert_close(getattr(one, name), total, rtol=1e-12, atol=0)


def test_metric__sums_stay_wide():
    metric = BoundaryF1().to(torch.float16)
    assert metric.total.dtype == torch.float64


def test_sparse_truth__is_refused_in_one_line():
    depth, target, _ = images()
    valid = torch.rand(target.shape) > 0.8
    with pytest.raises(DataError, match=r"--boundary true is for dense truth"):
        BoundaryF1().update(depth, target, valid)


def test_scores__are_plain_numbers_for_the_results_file():
    metric = BoundaryF1()
    metric.update(*images())
    content = json.loads(json.dumps(metric.scores()._asdict()))
    assert set(content) == {"f1", "n_images", "n_without_edges"}
