"""DoRA off its trodden path: in place, large biases, tiny rows, double precision."""

import copy

import pytest
import torch
from torch import nn

from models.adapters import DoRA, Lava, LoRA, SVDiff, Tucker, adapt
from tests.models.adapters.networks import perturb

LAYERS = {
    "linear": (lambda: nn.Linear(48, 32), (256, 48)),
    "conv": (lambda: nn.Conv2d(6, 16, 3, padding=1), (4, 6, 12, 12)),
    "transposed": (lambda: nn.ConvTranspose2d(6, 16, 2, 2), (4, 6, 8, 8)),
    "grouped": (lambda: nn.Conv2d(6, 16, 3, groups=2), (4, 6, 12, 12)),
}
DORA = DoRA(rank=2, targets=["0"], train_fully=[])


@pytest.mark.parametrize("method", [Lava, LoRA, DoRA, Tucker, SVDiff])
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_activation__in_place_after_any_method_and_layer(kind, method, dropout):
    if (kind, method) == ("grouped", DoRA) or (dropout and method is SVDiff):
        dropout = 0.0
    make, size = LAYERS[kind]
    layer, x = make().double(), torch.randn(size, dtype=torch.float64)
    given = {} if method is SVDiff else {"rank": 2, "dropout": dropout}
    gradients = []
    for inplace in (True, False):
        network = nn.Sequential(copy.deepcopy(layer), nn.LeakyReLU(0.1, inplace))
        torch.manual_seed(0)
        adapt(network, method(targets=["0"], train_fully=[], **given))
        perturb(network)
        network(x).square().sum().backward()
        gradients.append([p.grad for p in network.parameters() if p.requires_grad])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def plain_gradient(layer, x, grad, magnitude) -> torch.Tensor:
    """Of the magnitude, by autograd under bfloat16 while there is no increment."""
    m = magnitude.detach().float().requires_grad_()
    axes = [1] * (x.ndim - 2)
    bare = copy.deepcopy(layer)
    bare.bias = None
    with torch.autocast("cpu", torch.bfloat16):
        product = bare(x)
    gain = (m / m.detach()).bfloat16().view(-1, *axes)
    (product * gain + layer.bias.detach().bfloat16().view(-1, *axes)).backward(grad)
    return m.grad


@pytest.mark.parametrize("bias", [0.0, 1.0, 10.0, 64.0])
@pytest.mark.parametrize("kind", ["linear", "conv", "transposed"])
def test_magnitude__gradient_in_bfloat16_is_as_exact_as_autograds(kind, bias):
    make, size = LAYERS[kind]
    ours = plain = 0.0
    for seed in range(4):
        torch.manual_seed(seed)
        network, x = nn.Sequential(make()), torch.randn(size)
        nn.init.constant_(network[0].bias, bias)
        base, exact = copy.deepcopy(network[0]), copy.deepcopy(network).double()
        for each in (network, exact):
            adapt(each, DORA)
        with torch.autocast("cpu", torch.bfloat16):
            y = network(x)
        grad = torch.randn_like(y)
        y.backward(grad)
        exact(x.double()).backward(grad.double())
        m, truth = network[0].adapter.magnitude, exact[0].adapter.magnitude.grad
        for_plain = plain_gradient(base, x, grad, m)
        ours += (m.grad.double() - truth).norm() / truth.norm()
        plain += (for_plain.double() - truth).norm() / truth.norm()
    assert ours <= 1.2 * plain
    assert plain / 4 < 0.01  # what 8 bits leave


@pytest.mark.parametrize("kind", ["linear", "conv", "transposed"])
def test_magnitude__gradient_at_rows_far_smaller_than_the_bias_is_exact(kind):
    make, size = LAYERS[kind]
    network, x = nn.Sequential(make()), torch.randn(size)
    with torch.no_grad():
        network[0].weight.mul_(1e-12)
    exact = copy.deepcopy(network).double()
    for each in (network, exact):
        adapt(each, DORA)
        each(x.to(each[0].base_weight)).sum().backward()
    found, wanted = (each[0].adapter.magnitude.grad for each in (network, exact))
    # float32, sums of a few hundred products.
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("exponent", range(-12, 7, 2))
@pytest.mark.parametrize("kind", ["linear", "conv", "transposed"])
def test_start__is_the_base_at_every_norm_of_a_row(kind, exponent):
    make, size = LAYERS[kind]
    network, x = nn.Sequential(make()), torch.randn(size)
    with torch.no_grad():
        network[0].weight.mul_(10.0**exponent)
        network[0].bias.mul_(10.0**exponent)
    before = network(x)
    adapt(network, DORA)
    gain = network[0].adapter.gain(network[0].base_weight)
    assert torch.equal(gain, torch.ones_like(gain))
    # The bias is added in another order: one rounding.
    scale = before.abs().max()
    torch.testing.assert_close(network(x) / scale, before / scale, rtol=0, atol=1e-6)


def test_start__row_of_zeros_stays_and_others_are_the_base():
    network, x = nn.Sequential(nn.Linear(6, 4)), torch.randn(3, 6)
    with torch.no_grad():
        network[0].weight[1] = 0
    before = network(x)
    adapt(network, DORA)
    y = network(x)
    torch.testing.assert_close(y, before, rtol=1e-6, atol=1e-6)
    y.square().sum().backward()
    grads = [p.grad for p in network[0].adapter.parameters()]
    assert all(grad.isfinite().all() for grad in grads)


def test_float64__is_computed_in_float64():
    network = nn.Sequential(nn.Linear(6, 4)).double()
    adapt(network, DORA)
    perturb(network)
    a, weight = network[0].adapter, network[0].base_weight
    v = weight + a.scale * a.up @ a.down
    gain = a.gain(weight)
    assert gain.dtype == torch.float64
    wanted = a.magnitude / v.norm(dim=1)
    torch.testing.assert_close(gain, wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", [DoRA, SVDiff])
def test_base__loaded_after_adapting_starts_as_if_loaded_before(method):
    given = {} if method is SVDiff else {"rank": 2}
    early, late = (nn.Sequential(nn.Linear(8, 6)) for _ in range(2))
    base, x = early.state_dict(), torch.randn(3, 8)
    wanted = early(x)
    adapt(late, method(targets=["0"], train_fully=[], **given))
    late.load_state_dict(base, strict=False)
    torch.testing.assert_close(late(x), wanted, rtol=1e-5, atol=1e-6)
    adapt(early, method(targets=["0"], train_fully=[], **given))
    for name, value in early[0].adapter.state_dict().items():
        if name in ("magnitude", "shift", "basis"):
            found = late[0].adapter.state_dict()[name]
            torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-5)
