"""Flora's arithmetic against NumPy, its bytes against a formula."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.optimisers import Flora
from models.optimisers.projections import Base
from tests.models.optimisers.reference import matrix, problem, steps_of, train

SHAPES = {
    "tall": (12, 7),
    "wide": (5, 11),
    "kernel": (6, 4, 3, 3),
    "embedding": (1, 9, 8),
    "1 x 1": (6, 8, 1, 1),
}
VECTORS = {"vector": (9,), "scalar": (), "flat kernel": (1, 7, 1, 1)}


@pytest.mark.parametrize("name", SHAPES | VECTORS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-6)]
)
def test_flora__whole_rank_is_momentum_on_adafactor(name, dtype, tolerance):
    shape = (SHAPES | VECTORS)[name]
    weight, gradients, parameter = problem(shape, 12, dtype)
    rank = 2 if name in VECTORS else min(matrix(shape))
    optimizer = Flora([("w", parameter)], lr=1e-2, rank=rank, kappa=4)
    seen = matrix(shape)
    expected, _ = train(weight.reshape(seen), gradients.reshape(-1, *seen))
    for found, wanted in zip(
        steps_of(optimizer, parameter, gradients), expected, strict=True
    ):
        np.testing.assert_allclose(
            found.numpy().reshape(seen), wanted, rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("projection", ["gaussian", "orthonormal"])
def test_flora__equals_the_papers_algorithm_over_periods(name, projection):
    shape, rank, kappa = SHAPES[name], 3, 5
    weight, gradients, parameter = problem(shape, 2 * kappa + 3)
    options = {"kappa": kappa, "beta": 0.8, "lr": 3e-2}
    optimizer = Flora(
        [("layer.w", parameter)], rank=rank, projection=projection, seed=7, **options
    )
    seen = matrix(shape)

    def drawn(period):
        base = Base(projection, 7, period, min(seen), rank)
        return base.draw()[base.rows_of("layer.w")].numpy()

    expected, momenta = train(
        weight.reshape(seen), gradients.reshape(-1, *seen), drawn, **options
    )
    found = steps_of(optimizer, parameter, gradients)
    for step, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(step.numpy().reshape(seen), wanted, rtol=1e-11)
    held = optimizer.state[parameter]["momentum"].numpy()
    across = seen[0] < seen[1]
    np.testing.assert_allclose(held if across else held.T, momenta[-1], rtol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"weight_decay": 0.3},
        {"scale_parameter": True},
        {"relative_step": True, "lr": 0.6},
        {"clip": 0.2},
        {"scale_parameter": True, "relative_step": True, "weight_decay": 0.1},
    ],
    ids=lambda options: "-".join(options),
)
@pytest.mark.parametrize("shape", [(12, 7), (9,)], ids=["matrix", "vector"])
def test_flora__each_option_equals_its_formula(options, shape):
    weight, gradients, parameter = problem(shape, 8)
    optimizer = Flora([parameter], **{"lr": 1e-2, "rank": 7, **options})
    expected, _ = train(weight, gradients, **options)
    found = steps_of(optimizer, parameter, gradients)
    np.testing.assert_allclose(found[-1].numpy(), expected[-1], rtol=1e-12)


@st.composite
def shapes(draw):
    return tuple(draw(st.lists(st.sampled_from([1, 2, 3, 5, 8]), max_size=4)))


@given(st.lists(shapes(), min_size=1, max_size=4), st.integers(1, 9))
@settings(deadline=None, max_examples=40)
def test_state__has_the_bytes_of_the_formula(sizes, rank):
    parameters = [nn.Parameter(torch.ones(size)) for size in sizes]
    optimizer = Flora(parameters, rank=rank)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    numbers, sides = 0, set()
    for size in sizes:
        seen = matrix(size)
        if len(seen) == 1:
            numbers += 2 * seen[0]
            continue
        m, n = seen
        whole = rank >= min(m, n)
        numbers += (m * n if whole else max(m, n) * rank) + m + n
        if not whole:
            sides.add(min(m, n))
    saved = optimizer.state_dict()["state"].values()
    tensors = [v for state in saved for v in state.values() if torch.is_tensor(v)]
    assert sum(tensor.nbytes for tensor in tensors) == 4 * numbers
    assert {type(v) for state in saved for v in state.values()} <= {torch.Tensor, int}
    projections = sum(2 * side * rank for side in sides)
    assert optimizer.state_bytes() == 4 * (numbers + projections)


@given(
    st.sampled_from([(12, 7), (5, 11), (8, 2, 3)]), st.integers(1, 4), st.integers(0, 9)
)
@settings(deadline=None, max_examples=30)
def test_transfer__of_an_orthonormal_projection_never_enlarges(shape, rank, seed):
    _, (first, second, last), parameter = problem(shape, 3)
    optimizer = Flora([parameter], rank=rank, kappa=3, seed=seed)
    steps_of(optimizer, parameter, [first, second])
    before = optimizer.state[parameter]["momentum"].norm()
    # Without a gradient nothing but the transfer and the decay happens to it.
    steps_of(optimizer, parameter, [0 * last])
    after = optimizer.state[parameter]["momentum"].norm()
    assert after <= 0.9 * before * (1 + 1e-12)


def test_transfer__of_a_gaussian_projection_enlarges_by_the_root_of_n_over_rank():
    n, rank = 400, 4
    _, (first, second), parameter = problem((500, n), 2)
    optimizer = Flora([parameter], rank=rank, kappa=2, projection="gaussian")
    steps_of(optimizer, parameter, [first])
    before = optimizer.state[parameter]["momentum"].norm()
    steps_of(optimizer, parameter, [0 * second])
    after = optimizer.state[parameter]["momentum"].norm()
    # 4 x 4 products of Gaussians: the factor itself varies by about a quarter.
    assert 0.5 < after / (0.9 * before) / math.sqrt(n / rank) < 2
