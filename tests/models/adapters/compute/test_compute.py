"""The compute core against plain autograd: values and every gradient, each path."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from models.adapters import DoRA, Lava, LoRA, SVDiff, Tucker, adapt
from models.adapters.base import Bottleneck
from models.adapters.compute.convolution import Geometry, adapted_conv
from models.adapters.compute.linear import adapted_linear
from tests.conftest import lacks

PATHS = ["factored", "hybrid"]


def double(*size):
    return torch.randn(size, dtype=torch.float64, requires_grad=True)


def linear_case(with_bias, with_gain):
    weight = torch.randn(5, 7, dtype=torch.float64)
    tensors = [double(2, 3, 7), double(2, 7), double(5, 2)]
    tensors += [double(5)] if with_bias else []
    tensors += [double(5)] if with_gain else []

    def run(path):
        def call(x, down, up, *rest):
            rest = list(rest)
            bias = rest.pop(0) if with_bias else None
            gain = rest.pop(0) if with_gain else None
            increment = Bottleneck(down, up, 0.7)
            return adapted_linear(x, weight, bias, increment, gain, path)

        return call

    return tensors, run


CONVS = {
    "1d": (Geometry((2,), (1,), (1,)), (4, 3, 3), (2, 3, 8)),
    "2d": (Geometry((2, 1), (1, 0), (1, 2)), (4, 3, 3, 2), (2, 3, 6, 5)),
    "3d": (Geometry((1, 1, 1), (1, 0, 0), (1, 1, 1)), (4, 2, 2, 1, 2), (1, 2, 3, 3, 3)),
    "transposed 1d": (Geometry((2,), (1,), (1,), True, (1,)), (3, 4, 3), (2, 3, 5)),
    "transposed 2d": (
        Geometry((2, 3), (0, 1), (1, 1), True, (1, 0)),
        (3, 4, 2, 3),
        (2, 3, 3, 4),
    ),
}


CORES = {"no core": None, "diagonal core": (2, 1), "dense core": (2, 3)}


def conv_case(name, with_bias, with_gain, core="no core"):
    geometry, stored, size = CONVS[name]
    weight = torch.randn(stored, dtype=torch.float64)
    out, inner = stored[:2][:: -1 if geometry.transposed else 1]
    if CORES[core] is None:
        factors = [double(2, inner, *stored[2:])]
    else:
        ranks = max(CORES[core])
        factors = [double(*CORES[core], *stored[2:]), double(ranks, inner)]
    tensors = [double(*size), double(out, 2), *factors]
    tensors += [double(out)] if with_bias else []
    tensors += [double(out)] if with_gain else []

    def run(path):
        def call(x, up, *rest):
            rest = list(rest)
            kernel = None if CORES[core] is None else rest.pop(0)
            down = rest.pop(0)
            bias = rest.pop(0) if with_bias else None
            gain = rest.pop(0) if with_gain else None
            increment = Bottleneck(down, up, 0.7, kernel)
            return adapted_conv(x, weight, bias, increment, geometry, gain, path)

        return call

    return tensors, run


CASES = {
    "linear": linear_case,
    **{
        f"conv {name}, {core}": partial(conv_case, name, core=core)
        for name in CONVS
        for core in CORES
    },
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("gain", [False, True], ids=["plain", "gain"])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("case", CASES)
def test_path__equals_autograd_in_value_and_every_gradient(case, bias, gain, path):
    tensors, run = CASES[case](with_bias=bias, with_gain=gain)
    expected, ours = run("reference")(*tensors), run(path)(*tensors)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    seed = torch.randn_like(expected)
    for one, two in zip(
        torch.autograd.grad(ours, tensors, seed),
        torch.autograd.grad(expected, tensors, seed),
        strict=True,
    ):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("gain", [False, True], ids=["plain", "gain"])
@pytest.mark.parametrize(
    "case", [name for name in CASES if "1d" not in name and "3d" not in name]
)
def test_backward__gradcheck_and_second_derivatives(case, gain, path):
    tensors, run = CASES[case](with_bias=True, with_gain=gain)
    assert gradcheck(run(path), tensors, fast_mode=True)
    assert gradgradcheck(run(path), tensors, fast_mode=True)


@pytest.mark.parametrize(
    "memory_format", [torch.contiguous_format, torch.channels_last]
)
def test_conv__memory_layout_changes_nothing(memory_format):
    x = torch.randn(2, 6, 8, 8).to(memory_format=memory_format)
    weight = torch.randn(5, 6, 3, 3)
    increment = Bottleneck(torch.randn(2, 6, 3, 3), torch.randn(5, 2), 1.0)
    geometry = Geometry((1, 1), (1, 1), (1, 1))
    one, two = (
        adapted_conv(x, weight, None, increment, geometry, None, path)
        for path in ("factored", "reference")
    )
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Flatten(2),
        nn.Linear(64, 16),
        nn.Linear(16, 4),
    )


def adapted(config):
    torch.manual_seed(0)
    net = network()
    adapt(net, config)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith((".up", ".core")):
                parameter.normal_(0, 0.1)
    return net


def configs(rank=3):
    common = {"rank": rank, "targets": ["."], "train_fully": []}
    return [method(**common) for method in (Lava, LoRA, DoRA, Tucker)]


def saved_bytes(net, x) -> int:
    """Bytes of distinct storages kept for backward, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = net(x)
    total = sum(kept.values())
    del output
    return total


@pytest.mark.parametrize("method", [Lava, LoRA, Tucker])
def test_linear__keeps_x_and_r_channels_for_backward(method):
    net = nn.Sequential(nn.Linear(64, 256))
    adapt(net, method(rank=4, targets=["0"], train_fully=[]))
    x = torch.randn(1000, 64, requires_grad=True)
    small = 64 * 1024  # factors and their products
    assert saved_bytes(net, x) <= 4 * 1000 * (64 + 4) + small


def test_linear__dora_keeps_x_and_its_product():
    net = nn.Sequential(nn.Linear(64, 256))
    adapt(net, DoRA(rank=4, targets=["0"], train_fully=[]))
    x = torch.randn(1000, 64, requires_grad=True)
    assert saved_bytes(net, x) <= 4 * 1000 * (64 + 256 + 4) + 128 * 1024


@pytest.mark.parametrize("config", configs(), ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast__follows_the_layers_dtype(config, dtype):
    net = adapted(config)
    x = torch.randn(2, 3, 8, 8)
    exact = net(x)
    with torch.autocast("cpu", dtype):
        half = net(x)
    assert half.dtype == dtype
    half.float().sum().backward()
    # bfloat16 has 8 bits: three layers of rounding.
    torch.testing.assert_close(half.float(), exact, rtol=0.05, atol=0.05)
    grads = [p.grad for p in net.parameters() if p.requires_grad]
    assert all(g is not None and g.dtype == torch.float32 for g in grads)


@pytest.mark.parametrize("way", ["grouped", "dropout", "svdiff"])
def test_autocast__dense_way_of_a_convolution_follows_the_layers_dtype(way):
    conv = nn.Conv2d(4, 4, 3, groups=2 if way == "grouped" else 1)
    net, x = nn.Sequential(conv), torch.randn(2, 4, 8, 8)
    config = SVDiff if way == "svdiff" else Lava
    given = {} if way == "svdiff" else {"rank": 2}
    given |= {"dropout": 0.1} if way == "dropout" else {}
    adapt(net, config(targets=["0"], train_fully=[], **given))
    with torch.autocast("cpu", torch.bfloat16):
        y = net(x)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in net[0].adapter.parameters())


@pytest.mark.parametrize("config", configs(), ids=lambda c: type(c).__name__)
def test_checkpointing__gives_the_same_gradients(config):
    from torch.utils.checkpoint import checkpoint

    x = torch.randn(2, 3, 8, 8)
    gradients = []
    for wrapped in (False, True):
        net = adapted(config)
        y = checkpoint(net, x, use_reentrant=False) if wrapped else net(x)
        y.square().sum().backward()
        gradients.append([p.grad for p in net.parameters() if p.requires_grad])
    for one, two in zip(*gradients, strict=True):
        assert torch.equal(one, two)


# What dynamo of torch 2.11 does itself.
@pytest.mark.filterwarnings("ignore:.*Function.* should not be instantiated")
@lacks("compile the adapters' own backward")
@pytest.mark.parametrize("config", configs(), ids=lambda c: type(c).__name__)
def test_compile__fullgraph_gives_the_same_gradients(config):
    x = torch.randn(2, 3, 8, 8)
    results = []
    for compiled in (False, True):
        net = adapted(config)
        call = (
            torch.compile(net, fullgraph=True, backend="aot_eager") if compiled else net
        )
        y = call(x)
        y.square().sum().backward()
        results.append([y, *(p.grad for p in net.parameters() if p.requires_grad)])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
