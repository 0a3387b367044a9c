"""A weight that is read without calling its layer is the adapted one."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.adapters import (
    LoRA,
    adapt,
    disabled,
    merge,
    unreached,
)
from tests.models.adapters.networks import INCREMENTS, perturb, ranked

METHODS = INCREMENTS


class Reader(nn.Module):
    """As BEiT, EVA, Swin and Mamba do."""

    def __init__(self, layer: nn.Module | None = None) -> None:
        super().__init__()
        self.qkv, self.proj = layer or nn.Linear(6, 18), nn.Linear(18, 6)

    def forward(self, x):
        return self.proj(F.linear(x, self.qkv.weight, self.qkv.bias))


class ScaledLinear(nn.Linear):
    """A subclass with a computation of its own, as weight standardisation has."""

    def forward(self, x):
        return F.linear(x, 2 * self.weight, self.bias)


def config(method, **given):
    rank = ranked(method)
    return method(train_fully=[], **rank, **given)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_weight__read_directly_is_adapted_with_a_gradient(method, compiled):
    network, x = Reader(), torch.randn(4, 6)
    call = network
    before = network(x)
    adapt(network, config(method, targets=["qkv", "proj"]))
    if compiled:
        call = torch.compile(network, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(call(x), before, rtol=1e-5, atol=1e-6)
    perturb(network)
    y = call(x)
    y.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)
    with disabled(network):
        assert torch.equal(network(x), before)
    merge(network)
    torch.testing.assert_close(network(x), y, rtol=1e-5, atol=1e-5)


def test_weight__parameters_state_dict_and_its_loading_are_the_bases():
    network = nn.Sequential(nn.Linear(4, 4))
    base = network[0].weight
    adapt(network, LoRA(rank=2, targets=["0"], train_fully=[]))
    perturb(network)
    assert dict(network.named_parameters())["0.weight"] is base
    assert network[0].base_weight is base
    assert not torch.equal(network[0].weight, base)
    assert torch.equal(network.state_dict()["0.weight"], base)
    network.load_state_dict({"0.weight": torch.ones(4, 4)}, strict=False)
    assert (base == 1).all()


def test_weight__failure_does_not_fall_back_to_the_base(monkeypatch):
    network = nn.Sequential(nn.Linear(4, 4))
    adapt(network, LoRA(rank=2, targets=["0"], train_fully=[]))
    del network[0].adapter.up
    with pytest.raises(RuntimeError, match=r"adapted weight failed: .*'up'"):
        _ = network[0].weight


@pytest.mark.parametrize("method", METHODS)
def test_subclass__with_its_own_forward_computes_with_the_adapted_weight(method):
    network, x = nn.Sequential(ScaledLinear(6, 6)), torch.randn(3, 6)
    before = network(x)
    adapt(network, config(method, targets=["0"]))
    torch.testing.assert_close(network(x), before, rtol=1e-5, atol=1e-6)
    perturb(network)
    y = network(x)
    merge(network)
    assert type(network[0]) is ScaledLinear
    torch.testing.assert_close(network(x), y, rtol=1e-5, atol=1e-5)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.used(x)


def test_unreached__adapters_are_named_once_in_training():
    network, x = Branches(), torch.randn(2, 4)
    adapt(network, LoRA(rank=2, targets=["used"], train_fully=[]))
    network.eval()(x)  # says nothing yet
    network.train()
    with pytest.warns(UserWarning, match=r"1 of the adapted weights nowhere: unused\."):
        network(x)
    assert unreached(network) == ["unused"]
    network(x)  # an error if it warned again


def test_unreached__compiled_parts_are_not_judged():
    network = nn.Sequential(Branches(), nn.Linear(4, 4))
    adapt(network, LoRA(rank=2, targets=["used"], train_fully=[]))
    network[0].compile(backend="eager")
    network(torch.randn(2, 4))


@pytest.mark.parametrize("method", METHODS)
def test_functional__per_sample_gradients_equal_a_loop(method):
    network, x = nn.Sequential(nn.Linear(6, 4)).double(), torch.randn(3, 6).double()
    adapt(network, config(method, targets=["0"]))
    perturb(network)
    trained = {n: p for n, p in network.named_parameters() if p.requires_grad}

    def loss(parameters, sample):
        return torch.func.functional_call(network, parameters, sample).square().sum()

    each = torch.vmap(torch.func.grad(loss), (None, 0))(trained, x)
    for i, sample in enumerate(x):
        wanted = torch.autograd.grad(network(sample).square().sum(), trained.values())
        for name, value in zip(trained, wanted, strict=True):
            # float64; the two sum in another order.
            torch.testing.assert_close(each[name][i], value, rtol=1e-9, atol=1e-9)
