import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.adapters import (
    AdapterError,
    DoRA,
    Lava,
    LoRA,
    SVDiff,
    Tucker,
    adapt,
    adapted_layers,
    adapters,
    disabled,
    merge,
    orthogonality,
    unmerge,
)
from models.adapters.layers import PLAIN, shape_of

METHODS = [Lava, LoRA, DoRA, Tucker, SVDiff]


def perturb(network, scale=0.3):
    """Give every adapter tensor a random value, so that increments are not zero."""
    with torch.no_grad():
        for _, adapter in adapters(network):
            for parameter in adapter.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=scale)


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
    if method is not SVDiff:
        given |= {"rank": min(rank, shape.max_rank), "alpha": alpha}
    return given


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
    elif method is SVDiff:
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
    assert torch.equal(network[0].weight, base)
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
        assert torch.equal(network[0].weight, base)


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


def test_dora__equals_its_formula():
    network = nn.Sequential(nn.Conv2d(4, 6, 3))
    adapt(network, DoRA(rank=3, alpha=6, targets=["0"], train_fully=[]))
    perturb(network, 1.0)
    a, weight = network[0].adapter, network[0].weight
    v = weight + 2.0 * torch.einsum("or,rihw->oihw", a.up, a.down)
    expected = (
        a.magnitude.view(-1, 1, 1, 1) * v / v.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    )
    torch.testing.assert_close(a.weight(weight), expected)


def test_tucker__delta_equals_floras_formula():
    network = nn.Sequential(nn.Conv2d(4, 6, 3))
    adapt(network, Tucker(rank=3, alpha=0.5, targets=["0"], train_fully=[]))
    perturb(network, 1.0)
    a = network[0].adapter
    kernel = [factor.T for factor in a.kernel]
    expected = 0.5 * torch.einsum(
        "abcd,oa,ib,hc,wd->oihw", a.core, a.up, a.down.T, *kernel
    )
    torch.testing.assert_close(a.delta(), expected)


def test_svdiff__equals_its_formula():
    network = nn.Sequential(nn.Conv2d(4, 6, 3))
    adapt(network, SVDiff(targets=["0"], train_fully=[]))
    perturb(network, 1.0)
    a, weight = network[0].adapter, network[0].weight.detach()
    left, sigma, right = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    expected = left @ torch.diag(torch.relu(sigma + a.shift)) @ right
    torch.testing.assert_close(a.weight(weight), expected.view_as(weight))


def test_svdiff__another_basis_is_refused():
    one, two = (nn.Sequential(nn.Linear(8, 8)) for _ in "12")
    for network in (one, two):
        adapt(network, SVDiff(targets=["0"], train_fully=[]))
    state = {k: v for k, v in one.state_dict().items() if ".adapter." in k}
    one.load_state_dict(state, strict=False)
    with pytest.raises(AdapterError, match="another singular basis"):
        two.load_state_dict(state, strict=False)


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


@pytest.mark.parametrize("method", [Lava, LoRA, Tucker])
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
    factors = [p for n, p in network.named_parameters() if n.endswith(("up", "down"))]
    assert all(p.grad.any() for p in factors)


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


def test_adapt__layer_that_is_read_but_never_called_is_refused():
    layer = nn.TransformerEncoderLayer(8, 2)
    with pytest.raises(AdapterError, match="fused kernels read its weight"):
        adapt(layer, Lava(rank=2, targets=["linear1"], train_fully=[]))
