import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.adapters import (
    AdapterError,
    Lava,
    LoRA,
    adapt,
    adapted_layers,
    merge,
    orthogonality,
)
from models.adapters.base import WeightShape

METHODS = [Lava, LoRA]


def perturb(network, scale=0.3):
    """Give every adapter tensor a random value, so that increments are not zero."""
    with torch.no_grad():
        for _, layer in adapted_layers(network):
            for parameter in layer.adapter.parameters():
                parameter.normal_(0, scale)


@st.composite
def layers(draw):
    """A float64 layer and the shape of an input for it."""
    sizes = st.integers(1, 5)
    if draw(st.booleans()):
        layer = nn.Linear(draw(sizes), draw(sizes), bias=draw(st.booleans()))
        return layer.double(), (3, 2, layer.in_features)
    groups = draw(st.sampled_from([1, 1, 2]))
    stride = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = draw(st.sampled_from([0, 1, (2, 1), "same", "valid"]))
    if padding == "same":
        stride = 1
    layer = nn.Conv2d(
        groups * draw(sizes),
        groups * draw(sizes),
        draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        stride=stride,
        padding=padding,
        dilation=draw(st.integers(1, 2)),
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=draw(
            st.sampled_from(["zeros", "reflect", "replicate", "circular"])
        ),
    )
    return layer.double(), (2, layer.in_channels, 9, 8)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=60, deadline=None)
@given(case=layers(), rank=st.integers(1, 4), alpha=st.sampled_from([None, 0.5, 3.0]))
def test_adapt__identity_then_merge_equals_forward(method, case, rank, alpha):
    layer, size = case
    x = torch.randn(size, dtype=torch.float64)
    shape = WeightShape(tuple(layer.weight.shape))
    rank = min(rank, shape.max_rank)
    config = method(rank=rank, alpha=alpha, targets=["0"], train_fully=[])
    network = nn.Sequential(layer)
    before, keys = network(x), list(network.state_dict())

    assert adapt(network, config) == ("0",)
    network.double()
    assert torch.equal(network(x), before)
    assert isinstance(network[0], type(layer).__base__)
    trained = [p for p in network.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == config.count(shape)
    assert [k for k in network.state_dict() if ".adapter." not in k] == keys

    perturb(network)
    adapted = network(x)
    adapted.square().sum().backward()
    assert all(p.grad is not None for p in trained)
    merge(network)
    torch.testing.assert_close(network(x), adapted, rtol=1e-10, atol=1e-10)
    assert list(network.state_dict()) == keys
    assert type(network[0]) in (nn.Linear, nn.Conv2d)


def test_lava__delta_is_the_sum_of_rank_1_terms():
    """Against the definition, written as one einsum."""
    network = nn.Sequential(nn.Conv2d(4, 6, (3, 2)))
    adapt(network, Lava(rank=3, alpha=6, targets=["0"], train_fully=[]))
    perturb(network, 1.0)
    a = network[0].adapter
    expected = 2.0 * torch.einsum("or,ri,rh,rw->oihw", a.up, a.down, *a.kernel)
    torch.testing.assert_close(a.delta(), expected)


def test_lora__conv_delta_follows_pefts_layout():
    network = nn.Sequential(nn.Conv2d(4, 6, 3))
    adapt(network, LoRA(rank=3, alpha=6, targets=["0"], train_fully=[]))
    perturb(network, 1.0)
    a = network[0].adapter
    expected = 2.0 * torch.einsum("or,rihw->oihw", a.up, a.down)
    torch.testing.assert_close(a.delta(), expected)


def test_lava__starts_with_orthonormal_factors():
    network = nn.Sequential(nn.Conv2d(8, 6, (3, 1)))
    adapt(network, Lava(rank=4, targets=["0"], train_fully=[]))
    a = network[0].adapter
    torch.testing.assert_close(a.down @ a.down.T, torch.eye(4))
    torch.testing.assert_close(a.kernel[0].norm(dim=1), torch.ones(4))
    assert len(a.kernel) == 1  # the axis of size 1 has no factor
    assert not a.up.any()


def stack() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 8))


def brute_force(network, config) -> float:
    total, layers = 0.0, 0
    for _, layer in adapted_layers(network):
        layers += 1
        a = layer.adapter
        for factor in (a.up, a.down.flatten(1).T):
            gram = factor.T @ factor - torch.eye(config.rank)
            if config.orthogonal == "offdiag":
                gram = gram - torch.diag(gram.diag())
            total += gram.square().sum().item() / 2
    return config.orthogonal_weight * total / layers


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", ["both", "offdiag"])
def test_orthogonality__equals_brute_force(method, mode):
    config = method(rank=3, orthogonal=mode, targets=["."], train_fully=[])
    network = stack()
    adapt(network, config)
    perturb(network)
    penalty = orthogonality(network, config)
    expected = brute_force(network, config)
    assert penalty.item() == pytest.approx(expected, rel=1e-5)
    penalty.backward()
    assert all(p.grad.any() for p in network.parameters() if p.requires_grad)


def test_orthogonality__is_zero_with_zero_gradient_at_orthonormal_factors():
    config = Lava(rank=3, targets=["."], train_fully=[])
    network = stack()
    adapt(network, config)
    with torch.no_grad():
        for _, layer in adapted_layers(network):
            layer.adapter.up.copy_(torch.linalg.qr(torch.randn(len(layer.weight), 3)).Q)
    penalty = orthogonality(network, config)
    assert penalty.item() < 1e-10
    penalty.backward()
    # The un-squared norm would have gradients of size 1 here.
    assert (
        max(p.grad.abs().max() for p in network.parameters() if p.requires_grad) < 1e-5
    )


def test_orthogonality__paper_regularises_only_the_out_factor_of_convolutions():
    config = Lava(rank=3, orthogonal="paper", targets=["."], train_fully=[])
    network = nn.Sequential(nn.Conv2d(6, 6, 3))
    adapt(network, config)
    perturb(network)
    orthogonality(network, config).backward()
    a = network[0].adapter
    assert a.up.grad is not None
    assert a.down.grad is None


def test_orthogonality__none_is_no_penalty():
    config = LoRA(rank=3, targets=["."], train_fully=[])
    network = stack()
    adapt(network, config)
    assert orthogonality(network, config) is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rank": 7}, "0: rank 7 is larger than 6"),
        ({"targets": ["attention"]}, "'attention' matches none of the 3 layers"),
        ({"train_fully": ["head"]}, "train_fully: 'head' matches none"),
        ({"targets": ["0"], "train_fully": ["0"]}, "adapted or trained in full"),
        ({"targets": None}, "Sequential suggests none"),
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
        ({"alpha": -1.0}, "alpha -1.0"),
        ({"targets": "qkv"}, "one string"),
        ({"targets": ["("]}, "not a regular expression"),
        ({"orthogonal": "some"}, "use one of both, paper, offdiag, none"),
        ({"orthogonal_weight": -0.1}, "orthogonal_weight"),
    ],
)
def test_config__wrong_options_are_named(options, message):
    with pytest.raises(AdapterError, match=message):
        Lava(**options)


def test_adapt__twice_is_refused():
    network = stack()
    adapt(network, Lava(rank=2, targets=["0"], train_fully=[]))
    with pytest.raises(AdapterError, match="merge them first"):
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
