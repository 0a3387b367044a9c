"""What must not change Flora's steps: order, freezing, chunks, formats, copies."""

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.optimisers import Flora
from models.optimisers.projections import Base
from tests.models.optimisers.reference import problem, steps_of

SET = {
    "a": (12, 7),
    "b": (12, 7),
    "c": (4, 3, 3, 3),
    "d": (7,),
    "e": (5, 11),
    "f": (7,),
}


def run(groups, kappa=3, steps=8, frozen=(), named=True):
    """Weights by name after some steps on gradients of their own."""
    weights = {}
    for name, shape in SET.items():
        generator = torch.Generator().manual_seed(ord(name))
        weights[name] = nn.Parameter(torch.randn(shape, generator=generator))
    optimizer = Flora(
        [
            {"params": [(n, weights[n]) if named else weights[n] for n in names]}
            for names in groups
            if names
        ],
        rank=2,
        kappa=kappa,
        weight_decay=0.1,
    )
    for step in range(steps):
        for name, weight in weights.items():
            generator = torch.Generator().manual_seed(1000 * ord(name) + step)
            gradient = torch.randn(weight.shape, generator=generator)
            weight.grad = None if name in frozen else gradient
        optimizer.step()
    return weights


@pytest.mark.parametrize("named", [True, False])
@given(
    st.permutations(list(SET)),
    st.integers(1, 5),
    st.sets(st.sampled_from("abcdef"), max_size=4),
)
@settings(deadline=None, max_examples=15)
def test_flora__neither_order_nor_frozen_tensors_change_a_bit(
    named, order, cut, frozen
):
    expected = run([list(SET)], named=named)
    missing = {name for name in frozen if order.index(name) % 2}
    kept = [name for name in order if name not in missing]
    found = run([kept[:cut], kept[cut:]], named=named, frozen=frozen)
    for name in SET.keys() - frozen:
        assert torch.equal(found[name], expected[name]), name


@pytest.mark.parametrize("chunk", [1, 100])
def test_flora__does_not_depend_on_what_is_updated_together(monkeypatch, chunk):
    expected = run([list(SET)])
    monkeypatch.setattr("models.optimisers.flora.CHUNK", chunk)
    found = run([list(SET)])
    assert all(torch.equal(found[name], expected[name]) for name in SET)


def test_flora__any_memory_format_and_precision():
    weight, gradients, parameter = problem((8, 4, 3, 3), 4, torch.float32)
    plain = steps_of(Flora([parameter], rank=2), parameter, gradients)
    last = {"dtype": torch.float32, "memory_format": torch.channels_last}
    other = nn.Parameter(torch.tensor(weight).to(**last))
    optimizer = Flora([other], rank=2)
    for gradient in gradients:
        other.grad = torch.tensor(gradient).to(**last)
        optimizer.step()
    torch.testing.assert_close(other.detach(), plain[-1])
    half = nn.Parameter(torch.tensor(weight, dtype=torch.bfloat16))
    optimizer = Flora([half], rank=2, lr=0.1)
    steps_of(optimizer, half, gradients)
    assert half.dtype == torch.bfloat16
    assert optimizer.state[half]["momentum"].dtype == torch.float32
    assert half.isfinite().all()


def test_flora__closure_and_deepcopy():
    weight = nn.Parameter(torch.ones(6, 4))
    optimizer = Flora([weight], lr=0.1, rank=2)

    def closure():
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(5)]
    assert losses == sorted(losses, reverse=True)
    other = copy.deepcopy(optimizer)
    assert other.state_bytes() < optimizer.state_bytes()
    (copied,) = other.param_groups[0]["params"]
    copied.grad = weight.grad.clone()
    other.step()
    assert not torch.equal(copied, weight)


def test_flora__trains_a_network_of_convolutions_and_linears():
    """A regression whose answer lies in its own range: convolution, then linear."""

    def final(optimizer_of):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(2, 16, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(256, 8)
        )
        teacher = copy.deepcopy(net)
        for parameter in teacher.parameters():
            nn.init.normal_(parameter, std=0.3)
        optimizer = optimizer_of(net)
        for _ in range(60):
            x = torch.randn(32, 2, 4, 4)
            loss = (net(x) - teacher(x)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    start = final(lambda net: torch.optim.SGD(net.parameters(), lr=0.0))
    found = final(lambda net: Flora(net.named_parameters(), lr=0.03, rank=2))
    assert found < 0.2 * start


def test_projections__are_orthonormal_or_have_the_papers_variance():
    for name, period in itertools.product(("a", "b"), (0, 1)):
        base = Base("orthonormal", 0, period, 9, 4)
        drawn = base.draw()[base.rows_of(name)]
        torch.testing.assert_close(drawn.T @ drawn, torch.eye(4).double())
        wide = Base("gaussian", 0, period, 300, 50)
        drawn = wide.draw()[wide.rows_of(name)]
        # Of 15,000 numbers: mean and variance to five standard errors.
        assert abs(float(drawn.mean())) < 5 * (50 * 15_000) ** -0.5
        assert abs(50 * float(drawn.var()) - 1) < 5 * (2 / 15_000) ** 0.5


def test_projections__differ_by_name_period_seed_and_size():
    def drawn(name="a", seed=0, period=0):
        base = Base("orthonormal", seed, period, 64, 4)
        return base.draw()[base.rows_of(name)]

    others = [drawn(name="b"), drawn(seed=1), drawn(period=1)]
    for other in others:
        # Random 4 dimensions of 64 share 4 x 4 / 64 of 4 directions on average.
        assert (drawn().T @ other).square().sum() < 1
    assert torch.equal(drawn(), drawn())
