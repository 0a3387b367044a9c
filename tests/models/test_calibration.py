"""Fits to known points: against NumPy in float64, and on points of known relations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.errors import DataError
from models.calibration import NEAR_M, calibrate, wanted_fit

FAR_M = 1000.0
seeds = st.integers(0, 2**32 - 1)
scales = st.floats(0.02, 10)


def needs_scikit_learn():
    pytest.importorskip("sklearn", reason="pip install -e '.[points]'")


def predictions(seed, count, low=0.5, high=8.0):
    """Evenly over a range, in float32 as networks give them."""
    rng = np.random.default_rng(seed)
    spread = np.linspace(low, high, count) + rng.uniform(-0.01, 0.01, count)
    return rng.permutation(spread).astype(np.float32), rng


def with_outliers(t, rng):
    """A fifth of them twice to five times too near or too far."""
    bad = rng.permutation(len(t))[: len(t) // 5]
    t = t.copy()
    t[bad] *= rng.uniform(2, 5, len(bad)) ** rng.choice([-1, 1], len(bad))
    return t


@settings(deadline=None, max_examples=25)
@given(seeds, scales, st.integers(1, 30))
def test_median__finds_a_scale(seed, scale, count):
    p, _ = predictions(seed, count)
    found = calibrate(p, scale * p.astype(float), "metres", "median", 1e6)
    assert found.scale == pytest.approx(scale, rel=1e-6)
    assert (found.fit, found.shift, found.count) == ("median", 0.0, count)
    assert found.residual < 1e-6
    assert found.outliers == 0


@settings(deadline=None, max_examples=25)
@given(seeds, scales, st.floats(0, 2), st.integers(10, 60))
def test_scale_shift__finds_both(seed, scale, shift, count):
    p, _ = predictions(seed, count)
    found = calibrate(p, scale * (p + shift), "metres", "auto", 1e6)
    assert found.fit == "scale_shift"
    assert found.scale == pytest.approx(scale, rel=1e-5)
    assert found.shift == pytest.approx(scale * shift, rel=1e-5, abs=1e-5 * scale)
    assert found.outliers == 0


@settings(deadline=None, max_examples=25)
@given(seeds, st.floats(0.01, 1), st.floats(0.01, 1), st.integers(2, 60))
def test_disparity__finds_both(seed, scale, shift, count):
    p, _ = predictions(seed, count)
    t = 1 / (scale * p.astype(float) + shift)
    found = calibrate(p, t, "disparity", "auto", FAR_M)
    np.testing.assert_allclose(found.metres(p, FAR_M), t, rtol=1e-5)
    assert found.fit == "disparity"
    assert found.residual < 1e-5


@settings(deadline=None, max_examples=25)
@given(seeds, scales, st.integers(20, 60))
def test_median__with_a_fifth_of_outliers_stays_near(seed, scale, count):
    """With noise of 10 %, whose median is off by the noise of the middle points."""
    p, rng = predictions(seed, count)
    t = scale * p * np.exp(0.1 * rng.standard_normal(count))
    found = calibrate(p, with_outliers(t, rng), "metres", "median", 1e6)
    # The median lies between the quantiles 3/8 and 5/8 of the rest: 0.03 and sampling.
    assert abs(np.log(found.scale / scale)) < 0.15


@settings(deadline=None, max_examples=25)
@given(seeds, scales, st.floats(0.1, 2), st.sampled_from(["metres", "disparity"]))
def test_line__with_a_fifth_of_outliers_stays_near(seed, scale, shift, unit):
    """Where least squares is off by half and more."""
    needs_scikit_learn()
    p, rng = predictions(seed, 50)
    line = scale * (p.astype(float) + shift)
    t = line if unit == "metres" else 1 / line
    found = calibrate(p, with_outliers(t, rng), unit, "auto", 1e9)
    np.testing.assert_allclose(found.metres(p, 1e9), t, rtol=0.05)
    assert found.outliers >= 10


def huber_by_descent(x, y):
    """Huber's line with its own scale, by reweighting: no solver of scikit-learn's."""
    scale, shift = np.polyfit(x, y, 1)
    sigma = np.std(scale * x + shift - y)
    for _ in range(3000):
        r = np.abs(scale * x + shift - y)
        far = r > 1.35 * sigma
        weights = np.where(far, 1.35 * sigma / np.maximum(r, 1e-300), 1.0)
        scale, shift = np.polyfit(x, y, 1, w=np.sqrt(weights))
        # Where the derivative of n sigma + sum of Huber's losses by sigma is 0.
        inside = np.square(np.where(far, 0, r)).sum()
        sigma = np.sqrt(inside / (len(x) - 1.35**2 * far.sum()))
    return scale, shift


@pytest.mark.parametrize("unit", ["metres", "depth", "disparity"])
def test_line__equals_huber_by_reweighting(unit):
    needs_scikit_learn()
    p, rng = predictions(1, 40)
    y = (2.5 * p + 1) * np.exp(0.05 * rng.standard_normal(40))
    t = with_outliers(1 / y if unit == "disparity" else y, rng)
    found = calibrate(p, t, unit, "auto", FAR_M)
    x = p.astype(float)
    expected = huber_by_descent(x, 1 / t if unit == "disparity" else t)
    # scikit-learn's solver stops at gradients of 1e-5 of its loss.
    np.testing.assert_allclose((found.scale, found.shift), expected, rtol=1e-3)
    fitted = found.scale * x + found.shift
    errors = np.abs(np.log((1 / fitted if unit == "disparity" else fitted) / t))
    assert found.residual == pytest.approx(np.median(errors), rel=1e-6)
    assert found.outliers == (errors > 3 * 1.4826 * np.median(errors)).sum()


@pytest.mark.parametrize("points", [3, 4])
def test_median__is_numpys_of_log_ratios(points):
    p = np.array([1.0, 2.0, 3.0, 4.0])[:points]
    t = np.array([2.0, 3.0, 12.0, 5.0])[:points]
    found = calibrate(p, t, "depth", "auto", FAR_M)
    expected = np.exp(np.median(np.log(t) - np.log(p)))
    assert found.scale == pytest.approx(expected, rel=1e-12)


def test_auto__takes_the_median_where_a_slope_has_no_meaning():
    p = np.linspace(1, 2, 20)
    assert calibrate(p, 4 - p, "metres", "auto", FAR_M).fit == "median"
    assert calibrate(np.ones(20), 4 - p, "metres", "auto", FAR_M).fit == "median"


@pytest.mark.parametrize(
    ("unit", "fit", "p"),
    [
        ("metres", "scale_shift", np.linspace(1, 2, 20)),
        ("disparity", "auto", np.linspace(2, 1, 20)),
        ("disparity", "auto", np.ones(20)),
        ("depth", "median", np.zeros(20)),
    ],
)
def test_points_that_contradict_the_prediction__are_refused(unit, fit, p):
    needs_scikit_learn()
    with pytest.raises(DataError, match="contradict the prediction"):
        calibrate(p, 4 - np.linspace(1, 2, 20), unit, fit, FAR_M)


@pytest.mark.parametrize(
    ("unit", "fit", "count"), [("disparity", "auto", 1), ("metres", "scale_shift", 9)]
)
def test_too_few_points__are_refused(unit, fit, count):
    p = np.linspace(1, 2, count)
    with pytest.raises(DataError, match=f"{count} known points are fewer than"):
        calibrate(p, p, unit, fit, FAR_M)


def test_disparity__has_one_fit():
    with pytest.raises(DataError, match="--points-fit median"):
        wanted_fit("disparity", "median", 5)


def test_metres__stay_between_near_and_far():
    p = np.linspace(1, 2, 12)
    found = calibrate(p, 4 * p - 3, "metres", "scale_shift", 10.0)
    np.testing.assert_allclose(found.metres(np.array([0.0, 9]), 10.0), [NEAR_M, 10])
    inverse = calibrate(p, 1 / p, "disparity", "auto", 10.0)
    np.testing.assert_allclose(inverse.metres(np.array([-1.0, 0.0]), 10.0), 10)
