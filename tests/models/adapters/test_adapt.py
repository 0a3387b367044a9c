"""What is adapted, and what is refused with the network left as it was."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from models.adapters import (
    AdapterError,
    Lava,
    LoRA,
    TrainFully,
    adapt,
    adapted_layers,
    merge,
)
from models.adapters.state import describe
from tests.models.adapters.networks import perturb, stack


def test_pattern__gives_layers_their_own_rank_and_alpha():
    network = stack()
    config = Lava(
        rank=2,
        alpha=4,
        rank_pattern={"^0$": 3},
        alpha_pattern={"[02]": 6},
        targets=["."],
        train_fully=[],
    )
    adapt(network, config)
    made = [(len(layer.adapter.down), layer.adapter.scale) for layer in network]
    assert made == [(3, 2.0), (2, 2.0), (2, 3.0)]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rank": 7}, "0: rank 7 is larger than 6"),
        ({"targets": ["attention"]}, "'attention' matches none of the 3 layers"),
        ({"train_fully": ["head"]}, "train_fully: 'head' matches none"),
        ({"targets": ["0"], "train_fully": ["0"]}, "adapted or trained in full"),
        ({"targets": None}, "Sequential suggests none"),
        ({"rank_pattern": {"head": 2}}, "alpha_pattern: 'head' matches none"),
    ],
)
def test_adapt__refusal_leaves_the_network_unchanged(config, message):
    network = stack()
    with pytest.raises(AdapterError, match=message):
        adapt(network, Lava(**{"targets": ["."], "train_fully": [], **config}))
    assert all(type(layer) is nn.Linear for layer in network)
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank 0 must be at least 1"),
        ({"rank": 2.0}, r"rank 2\.0 must be at least 1, a whole number"),
        ({"rank": "2"}, "rank '2' must be"),
        ({"rank_pattern": {"0": True}}, "rank True must be"),
        ({"rank_pattern": ["0"]}, "must map patterns to numbers"),
        ({"alpha": -1.0}, "alpha -1.0"),
        ({"alpha": "8"}, "alpha '8' must be a number above 0"),
        ({"dropout": None}, "dropout None must be from 0 to below 1"),
        ({"targets": [0]}, "0 is not a regular expression"),
        ({"targets": "qkv"}, "one string"),
        ({"targets": ["("]}, "not a regular expression"),
        ({"orthogonal": "some"}, "use one of both, paper, offdiag, none"),
        ({"orthogonal_weight": -0.1}, "orthogonal_weight"),
    ],
)
def test_config__wrong_options_are_named(options, message):
    with pytest.raises(AdapterError, match=message):
        Lava(**options)


def test_config__numbers_of_numpy_are_kept_as_plain_ones():
    config = LoRA(rank=np.int64(2), rank_pattern={"0": np.int32(3)})
    assert json.loads(json.dumps(describe(config)))["options"]["rank"] == 2


@pytest.mark.parametrize(
    "network", [nn.Linear(3, 3), nn.Sequential(nn.Bilinear(2, 2, 2))]
)
def test_adapt__a_network_without_layers_below_itself(network):
    with pytest.raises(AdapterError, match="no such layer below itself"):
        adapt(network, LoRA(rank=1, targets=["."]))


def test_adapt__twice_is_refused():
    network = stack()
    adapt(network, Lava(rank=2, targets=["0"], train_fully=[]))
    with pytest.raises(AdapterError, match="merge them, or close its bank, first"):
        adapt(network, Lava(rank=2, targets=["1"], train_fully=[]))


def test_depth_network__every_default_adapter_tensor_gets_a_gradient(tiny):
    adapt(tiny, Lava(rank=2))
    perturb(tiny, 0.1)
    tiny(torch.randn(1, 3, 42, 56)).log().sum().backward()
    trained = {n: p for n, p in tiny.named_parameters() if p.requires_grad}
    assert all(p.grad is not None and p.grad.any() for p in trained.values())
    names = [name for name, _ in adapted_layers(tiny)]
    assert not any("refinenet4.resConfUnit1" in name for name in names)
    assert "depth_head.scratch.output_conv2.2.weight" in trained
    assert sum(".attn.qkv" in name for name in names) == 6


def test_merge__keeps_the_official_keys_and_the_output(tiny):
    x = torch.randn(1, 3, 42, 56)
    keys = list(tiny.state_dict())
    adapt(tiny, LoRA(rank=2))
    perturb(tiny, 0.05)
    before = tiny(x)
    merge(tiny)
    assert list(tiny.state_dict()) == keys
    torch.testing.assert_close(tiny(x), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("owner", ["attention", "encoder layer"])
def test_adapt__fused_kernels_read_the_adapted_weight(owner):
    if owner == "attention":
        block, targets = nn.MultiheadAttention(8, 2, batch_first=True), ["out_proj"]
        call = lambda x: block(x, x, x)[0]  # noqa: E731
    else:
        block = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
        call, targets = block, ["linear1", "linear2", "out_proj"]
    x = torch.randn(2, 5, 8)
    before = call(x)
    assert adapt(block, Lava(rank=2, targets=targets, train_fully=[]))
    perturb(block)
    slow = call(x)
    assert not torch.allclose(slow, before)
    block.eval()
    with torch.no_grad():  # both conditions of torch's fast path
        torch.testing.assert_close(call(x), slow, rtol=1e-5, atol=1e-5)
    merge(block)
    torch.testing.assert_close(call(x), slow, rtol=1e-5, atol=1e-5)


def test_train_fully__trains_named_layers_and_nothing_else():
    network = stack()
    config = TrainFully(train_fully=["^1$"])
    assert adapt(network, config) == ()
    trained = [n for n, p in network.named_parameters() if p.requires_grad]
    assert trained == ["1.weight", "1.bias"]
    assert merge(network).bases == {}


def test_train_fully__has_no_increments():
    with pytest.raises(AdapterError, match="targets and parameters stay empty"):
        TrainFully(targets=["0"])
    with pytest.raises(AdapterError, match="nothing would be trained"):
        adapt(stack(), TrainFully(train_fully=[]))
