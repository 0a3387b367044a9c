import numpy as np
import pytest
import torch

from datamodules.protocols import Silog
from models.depth_metrics import DepthMetrics
from models.metrics import METRICS, per_image
from tests.models.published import by_hand


def images(count=5):
    generator = torch.Generator().manual_seed(1)
    shape = (count, 1, 6, 7)
    depth = torch.rand(shape, generator=generator) * 5 + 1
    target = depth * (0.6 + 0.8 * torch.rand(shape, generator=generator))
    valid = torch.rand(shape, generator=generator) > 0.4
    return depth, target, valid


def expected(depth, target, valid, scale=lambda p, g: 1.0):
    rows = []
    for p, g, v in zip(depth.double(), target.double(), valid, strict=True):
        if v.any():
            p, g = p[v].numpy(), g[v].numpy()
            rows.append(by_hand(p * scale(p, g), g))
    return {name: np.mean([row[name] for row in rows]) for name in METRICS}


def computed(metric) -> dict[str, float]:
    means = metric.compute()
    return {name: float(means[name]) for name in METRICS}


def test_compute__equals_the_published_formulas():
    metric = DepthMetrics()
    metric.update(*images())
    assert computed(metric) == pytest.approx(expected(*images()), rel=1e-6)


def test_compute__two_batches_equal_one():
    one, two = DepthMetrics(), DepthMetrics()
    given = images()
    one.update(*given)
    two.update(*(x[:2] for x in given))
    two.update(*(x[2:] for x in given))
    assert computed(two) == pytest.approx(computed(one), rel=1e-12)


def test_compute__is_the_mean_over_images_not_over_pixels():
    depth, target, valid = images(2)
    valid[0] = True
    valid[1] = False
    valid[1, 0, 0, 0] = True
    metric = DepthMetrics()
    metric.update(depth, target, valid)
    assert computed(metric) == pytest.approx(expected(depth, target, valid), rel=1e-6)


def test_compute__empty_images_are_counted_not_averaged():
    depth, target, valid = images()
    valid[3] = False
    metric = DepthMetrics()
    metric.update(depth, target, valid)
    means = metric.compute()
    assert (int(means["n_images"]), int(means["n_empty"])) == (4, 1)
    assert computed(metric) == pytest.approx(expected(depth, target, valid), rel=1e-6)


def test_compute__garbage_outside_the_mask_has_no_influence():
    depth, target, valid = images()
    metric = DepthMetrics()
    metric.update(
        torch.where(valid, depth, -1.0), torch.where(valid, target, torch.nan), valid
    )
    assert computed(metric) == pytest.approx(expected(depth, target, valid), rel=1e-6)


def test_silog__conventions():
    depth, target, valid = images()
    one, two = DepthMetrics(), DepthMetrics()
    one.update(depth, target, valid)
    two.update(depth, target, valid, Silog(0.5, 1.0))
    rows = []
    for p, g, v in zip(depth.double(), target.double(), valid, strict=True):
        e = (p[v].log() - g[v].log()).numpy()
        rows.append(np.sqrt((e**2).mean() - 0.5 * e.mean() ** 2))
    assert computed(two)["silog"] == pytest.approx(np.mean(rows), rel=1e-6)
    assert computed(two)["abs_rel"] == computed(one)["abs_rel"]


def test_compute__perfect_prediction():
    _, target, valid = images()
    metric = DepthMetrics()
    metric.update(target, target, valid)
    row = computed(metric)
    assert [row.pop(f"delta{k}") for k in (1, 2, 3)] == [1, 1, 1]
    assert set(row.values()) == {0}


def test_metrics__sum_in_float32_where_there_is_no_float64(monkeypatch):
    """Apple's GPUs refuse any float64 tensor."""
    monkeypatch.setattr("models.metrics.WIDE", torch.float32)
    monkeypatch.setattr("models.depth_metrics.WIDE", torch.float32)
    depth = torch.rand(2, 1, 4, 5) + 1
    valid = torch.ones_like(depth, dtype=torch.bool)
    rows = per_image(depth, depth * 1.1, valid)
    metrics = DepthMetrics()
    metrics.update(depth, depth * 1.1, valid)
    assert rows.dtype == metrics.sums.dtype == torch.float32
    assert metrics.compute()["abs_rel"] == pytest.approx(1 - 1 / 1.1, rel=1e-5)


def test_to__a_narrower_dtype_leaves_the_sums_as_they_are():
    metric = DepthMetrics()
    torch.nn.ModuleList([metric]).to(torch.bfloat16)
    metric.update(*images())
    assert computed(metric) == pytest.approx(expected(*images()), rel=1e-6)
