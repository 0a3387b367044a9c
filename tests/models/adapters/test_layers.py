"""Every layer kind in every geometry, with every method."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.adapters import (
    DoRA,
    FastLoRA,
    Lava,
    LoRA,
    SVDiff,
    Tucker,
    adapt,
    disabled,
    merge,
    unmerge,
)
from models.adapters.layers import PLAIN, shape_of
from tests.models.adapters.networks import INCREMENTS, perturb, ranked

METHODS = INCREMENTS


CONVS = {
    (1, False): nn.Conv1d,
    (2, False): nn.Conv2d,
    (3, False): nn.Conv3d,
    (1, True): nn.ConvTranspose1d,
    (2, True): nn.ConvTranspose2d,
    (3, True): nn.ConvTranspose3d,
}


SPACE = (7, 6, 5)


@st.composite
def convolutions(draw):
    """Any geometry of any convolution, and the shape of an input for it."""
    axes, transposed = draw(st.sampled_from(list(CONVS)))
    per_axis = lambda low, high: st.tuples(*[st.integers(low, high)] * axes)  # noqa: E731
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    depthwise = draw(st.booleans()) and groups > 1
    per_group = 1 if depthwise else draw(st.integers(1, 4))
    inner, out = (
        groups * per_group,
        groups * (1 if depthwise else draw(st.integers(1, 4))),
    )
    given = {
        "kernel_size": draw(per_axis(1, 3)),
        "stride": draw(per_axis(1, 2)),
        "padding": draw(per_axis(0, 1)),
        "dilation": draw(per_axis(1, 2)),
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    if transposed:
        steps = zip(given["stride"], given["dilation"], strict=True)
        given["output_padding"] = tuple(
            draw(st.integers(0, max(max(step) - 1, 0))) for step in steps
        )
    else:
        given["padding_mode"] = draw(
            st.sampled_from(["zeros", "reflect", "replicate", "circular"])
        )
        special = draw(st.sampled_from([None, None, "same", "valid"]))
        if special is not None:
            given["padding"] = special
        if special == "same":
            given["stride"] = 1
    layer = CONVS[axes, transposed](inner, out, **given)
    return layer.double(), (2, inner, *SPACE[:axes])


@st.composite
def linears(draw):
    sizes = st.integers(1, 6)
    layer = nn.Linear(draw(sizes), draw(sizes), bias=draw(st.booleans()))
    return layer.double(), draw(
        st.sampled_from([(layer.in_features,), (3, 2, layer.in_features)])
    )


@st.composite
def embeddings(draw):
    padding = draw(st.sampled_from([None, 0]))
    layer = nn.Embedding(draw(st.integers(2, 9)), draw(st.integers(1, 6)), padding)
    return layer.double(), None


def example_input(layer, size):
    if size is None:
        return torch.randint(0, layer.num_embeddings, (3, 4))
    return torch.randn(size, dtype=torch.float64)


def expressible(method, layer) -> bool:
    transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
    return not (method is DoRA and transposed and layer.groups > 1)


def options(method, shape, rank, alpha):
    given = {"targets": ["0"], "train_fully": []}
    return given | ranked(method, min(rank, shape.max_rank), alpha=alpha)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=150, deadline=None)
@given(
    case=st.one_of(convolutions(), convolutions(), linears(), embeddings()),
    rank=st.integers(1, 4),
    alpha=st.sampled_from([None, 0.5, 3.0]),
)
def test_adapt__identity_merge_and_unmerge_on_any_geometry(method, case, rank, alpha):
    layer, size = case
    if not expressible(method, layer):
        return
    x = example_input(layer, size)
    shape = shape_of(layer)
    config = method(**options(method, shape, rank, alpha))
    network = nn.Sequential(layer)
    before, keys = network(x), list(network.state_dict())
    base = layer.weight.detach().clone()

    assert adapt(network, config) == ("0",)
    if method is DoRA:
        torch.testing.assert_close(network(x), before, rtol=1e-6, atol=1e-6)
    elif method in (SVDiff, FastLoRA):
        # Another tensor than the base's: kernels may sum in another order.
        torch.testing.assert_close(network(x), before, rtol=1e-12, atol=1e-12)
    else:
        assert torch.equal(network(x), before)
    assert isinstance(network[0], type(layer).__mro__[2])
    trained = [p for p in network.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == config.count(shape)
    assert [k for k in network.state_dict() if ".adapter." not in k] == keys

    perturb(network)
    adapted = network(x)
    adapted.square().sum().backward()
    assert all(p.grad is not None for p in trained)
    with disabled(network):
        assert torch.equal(network(x), before)

    merged = merge(network)
    scale = adapted.abs().max().clamp(min=1)
    torch.testing.assert_close(network(x) / scale, adapted / scale, rtol=0, atol=1e-10)
    assert list(network.state_dict()) == keys
    assert type(network[0]) in PLAIN.values()
    unmerge(network, merged)
    assert torch.equal(network[0].base_weight, base)
    assert torch.equal(network(x), adapted)


@pytest.mark.parametrize("method", METHODS)
def test_unmerge__restores_bfloat16_weights_bit_by_bit(method):
    torch.manual_seed(0)
    layer = nn.Linear(32, 24).bfloat16()
    base = layer.weight.detach().clone()
    network = nn.Sequential(layer)
    adapt(network, method(targets=["0"], train_fully=[]))
    perturb(network, 0.01)
    for _ in range(3):
        merged = merge(network)
        assert not torch.equal(network[0].weight, base)
        assert 0.001 < merged.rounding < 1
        unmerge(network, merged)
        assert torch.equal(network[0].base_weight, base)


@pytest.mark.parametrize("method", METHODS)
def test_parameter__is_adapted_where_it_is_read(method):
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    keys = sorted(attention.state_dict())
    x = torch.randn(2, 5, 8)
    before = attention(x, x, x)[0]
    config = method(parameters=["in_proj_weight"], train_fully=[])
    assert adapt(attention, config) == ("in_proj_weight",)
    torch.testing.assert_close(attention(x, x, x)[0], before, rtol=1e-5, atol=1e-6)
    perturb(attention, 0.1)
    adapted = attention(x, x, x)[0]
    assert not torch.allclose(adapted, before)
    adapted.sum().backward()
    trained = [p for p in attention.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)
    merge(attention)
    torch.testing.assert_close(attention(x, x, x)[0], adapted, rtol=1e-5, atol=1e-6)
    assert sorted(attention.state_dict()) == keys


@pytest.mark.parametrize("method", [Lava, LoRA, DoRA, Tucker])
@pytest.mark.parametrize("chunks", ["q", "qv", "kv"])
def test_qkv__only_the_chosen_chunks_change(method, chunks):
    network = nn.ModuleDict({"qkv": nn.Linear(6, 12)})
    x = torch.randn(4, 6)
    before = network["qkv"](x)
    config = method(rank=2, qkv=chunks, targets=["qkv"], train_fully=[])
    adapt(network, config)
    count = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert count == config.count(shape_of(network["qkv"], chunks))
    perturb(network)
    changed = (network["qkv"](x) - before).abs().view(4, 3, 4).amax((0, 2)) > 1e-4
    assert changed.tolist() == [name in chunks for name in "qkv"]
    adapted = network["qkv"](x)
    merge(network)
    torch.testing.assert_close(network["qkv"](x), adapted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", [Lava, LoRA, DoRA, Tucker])
def test_dropout__drops_only_in_training(method):
    network = nn.Sequential(
        nn.Linear(6, 12), nn.Unflatten(1, (3, 4)), nn.Conv1d(3, 4, 3)
    )
    adapt(network, method(rank=2, dropout=0.5, targets=["0", "2"], train_fully=[]))
    perturb(network)
    x = torch.randn(4, 6)
    assert not torch.equal(network(x), network(x))
    network.eval()
    exact = network(x)
    assert torch.equal(network(x), exact)
    merge(network.train())
    torch.testing.assert_close(network(x), exact, rtol=1e-5, atol=1e-5)


def test_dropout__is_right_on_average():
    network = nn.Sequential(nn.Linear(6, 4))
    adapt(network, LoRA(rank=2, dropout=0.3, targets=["0"], train_fully=[]))
    perturb(network)
    x = torch.randn(1, 6)
    mean = network(x.expand(200_000, 6)).mean(0)
    # The deviation of the mean of 200 000 is below 0.005 here.
    torch.testing.assert_close(mean, network.eval()(x)[0], rtol=0, atol=0.02)
