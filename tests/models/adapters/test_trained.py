"""What training changes is what is saved, moved, switched off and brought back."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.adapters import (
    AdapterError,
    Lava,
    adapt,
    adapters,
    disabled,
    increments,
    merge,
    unmerge,
    weighted,
)
from models.adapters.state import adapter_names
from tests.models.adapters.networks import INCREMENTS, perturb, ranked

METHODS = INCREMENTS


class Odd(nn.Module):
    """BatchNorm, one layer under two names, a base module called `adapter`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.adapter = nn.ModuleDict(
            {"out": nn.Conv2d(4, 4, 1), "delta": nn.Identity()}
        )
        self.again = self.adapter["out"]
        self.plain = nn.BatchNorm2d(4, affine=False)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.norm(self.conv(x)).relu()
        x = self.plain(self.again(self.adapter["out"](x)))
        return self.head(x.mean((2, 3)))


LAYERS = ("conv", "norm", r"adapter\.out", "again", "plain", "head")
ADAPTABLE = ("conv", r"adapter\.out", "again", "head")


def train(network, steps=3) -> None:
    trained = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(trained, 0.1)
    network.train()
    for _ in range(steps):
        optimiser.zero_grad()
        network(2 * torch.randn(6, 3, 5, 5) + 1).square().mean().backward()
        optimiser.step()
    network.eval()


@pytest.mark.filterwarnings("ignore:.* nowhere")
@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=15, deadline=None)
@given(
    targets=st.sets(st.sampled_from(ADAPTABLE), min_size=1),
    whole=st.sets(st.sampled_from(LAYERS)),
)
def test_saved__comes_back_on_a_fresh_base_exactly(method, targets, whole):
    shared = {r"adapter\.out", "again"}
    if targets & shared:
        whole = whole - shared
    rank = ranked(method)
    config = method(
        targets=[f"^{name}$" for name in targets],
        train_fully=[f"^{name}$" for name in whole - targets],
        **rank,
    )
    network = Odd()
    fresh, base = copy.deepcopy(network), copy.deepcopy(network).eval()
    adapt(network, config)
    perturb(network)
    train(network)
    names = adapter_names(network)
    saved = {name: network.state_dict()[name].clone() for name in names}
    state = network.state_dict()
    assert len({state[name].data_ptr() for name in names}) == len(names)

    adapt(fresh, config)
    assert adapter_names(fresh) == list(saved)
    fresh.load_state_dict(saved, strict=False)
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(fresh.eval()(x), network(x))
    if "plain" in whole and "norm" in whole:  # else their statistics stay moved
        with disabled(network):
            # float32: grouped sums in one kernel or another.
            torch.testing.assert_close(network(x), base(x), rtol=1e-5, atol=1e-6)


def test_saved__frozen_tensors_of_a_base_module_called_adapter_are_not():
    network = Odd()
    adapt(network, Lava(rank=2, targets=["^conv$"], train_fully=["^norm$"]))
    names = adapter_names(network)
    statistics = {"running_mean", "running_var", "num_batches_tracked"}
    assert not any(name.startswith(("adapter.", "again.", "head")) for name in names)
    assert {f"norm.{name}" for name in statistics | {"weight", "bias"}} < set(names)


@pytest.mark.parametrize("name", ["again", r"adapter\.out"])
def test_layer__under_two_names_is_adapted_and_saved_once(name):
    network = Odd()
    config = Lava(rank=2, rank_pattern={f"^{name}$": 3}, targets=[name], train_fully=[])
    assert adapt(network, config) == ("adapter.out",)
    assert [len(adapter.down) for _, adapter in adapters(network)] == [3]
    assert all(
        name.startswith("adapter.out.adapter.")
        or ".running" in name
        or "batches" in name
        for name in adapter_names(network)
    )
    perturb(network)
    x = torch.randn(2, 3, 5, 5)
    before = network.eval()(x)
    merged = merge(network)
    torch.testing.assert_close(network(x), before, rtol=1e-5, atol=1e-5)
    unmerge(network, merged)
    assert torch.equal(network(x), before)


def test_weighted__moved_layers_count_as_trained_and_are_saved():
    network = Odd()
    base = copy.deepcopy(network)
    fresh = copy.deepcopy(network)
    config = Lava(rank=2, targets=["^conv$"], train_fully=["norm", r"adapter\.out"])
    adapt(network, config)
    perturb(network)
    train(network)
    combined = weighted(base, [(increments(network), 1.0)])
    x = torch.randn(2, 3, 5, 5)
    wanted = network(x)
    torch.testing.assert_close(base.eval()(x), wanted, rtol=1e-5, atol=1e-5)
    names = adapter_names(base)
    assert {"norm.weight", "norm.running_var", "adapter.out.weight"} < set(names)
    adapt(fresh, combined)
    assert adapter_names(fresh) == names
    fresh.load_state_dict({n: base.state_dict()[n] for n in names}, strict=False)
    assert torch.equal(fresh.eval()(x), base(x))


def test_disabled__is_the_base_where_layers_are_trained_and_keeps_older_graphs():
    network, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), torch.randn(3, 4)
    before = network(x).detach()
    adapt(network, Lava(rank=2, targets=["0"], train_fully=["1"]))
    perturb(network)
    with torch.no_grad():
        network[1].weight.add_(1)
    student, parameters = network(x), list(network.parameters())
    with disabled(network):
        assert torch.equal(network(x), before)
        assert torch.equal(network[0].weight, network[0].base_weight)
    assert all(a is b for a, b in zip(network.parameters(), parameters, strict=True))
    assert torch.equal(network(x), student)
    student.sum().backward()  # distillation: the graph is older than the block
    merged = merge(network)
    unmerge(network, merged)
    with disabled(network):
        assert torch.equal(network(x), before)


def test_disabled__trained_layer_that_was_replaced_is_refused():
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    adapt(network, Lava(rank=2, targets=["0"], train_fully=["1"]))
    network[1].weight = None
    with (
        pytest.raises(AdapterError, match=r"1\.weight was replaced"),
        disabled(network),
    ):
        pass
    assert network[0].adapter.enabled


class Tied(nn.Module):
    def __init__(self, padding=None) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 6, padding_idx=padding)
        self.head = nn.Linear(6, 9, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(self.embed(ids))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("padding", [None, 0], ids=["all rows", "padding row"])
@pytest.mark.parametrize("targets", [["head"], ["embed"], ["."]])
def test_tied__one_adapter_that_merging_leaves_tied(targets, padding, method):
    network, ids = Tied(padding), torch.arange(9)
    before, row = network(ids), network.embed.weight[0].detach().clone()
    rank = ranked(method)
    with pytest.warns(UserWarning, match=r"^embed\.weight and head\.weight are tied"):
        names = adapt(network, method(targets=targets, train_fully=[], **rank))
    assert names == ("embed",)
    torch.testing.assert_close(network(ids), before, rtol=1e-5, atol=1e-5)
    perturb(network)
    y = network(ids)
    y.square().sum().backward()
    assert all(p.grad is not None for p in network.embed.adapter.parameters())
    with pytest.warns(UserWarning, match=r"embed\.weight and head\.weight are tied"):
        merged = merge(network)
    torch.testing.assert_close(network(ids), y, rtol=1e-5, atol=1e-5)
    if padding is not None:
        assert torch.equal(network.embed.weight[0], row)
    fresh = Tied(padding)
    fresh.load_state_dict(network.state_dict())
    assert torch.equal(fresh(ids), network(ids))
    unmerge(network, merged)
    assert torch.equal(network(ids), y)
    assert network.head.base_weight is network.embed.base_weight
