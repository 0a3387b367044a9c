"""Adapted layers take and give what the plain ones do: dtypes, empty batches, rows."""

import pytest
import torch
from torch import nn

from models.adapters import adapt, merge
from tests.models.adapters.networks import INCREMENTS, perturb, ranked

METHODS = INCREMENTS
LAYERS = {
    "linear": (lambda: nn.Linear(8, 8), (2, 8)),
    "conv": (lambda: nn.Conv2d(4, 8, 3), (2, 4, 8, 8)),
    "grouped": (lambda: nn.Conv2d(4, 8, 3, groups=2), (2, 4, 8, 8)),
    "pointwise": (lambda: nn.Conv2d(4, 8, 1), (2, 4, 8, 8)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 8, 2, 2), (2, 4, 8, 8)),
    "embedding": (lambda: nn.Embedding(8, 8), (2, 3)),
    "padded": (lambda: nn.Embedding(8, 8, padding_idx=2), (2, 3)),
}


def example(kind, size, dtype=torch.float32):
    if kind in ("embedding", "padded"):
        return torch.randint(8, size)
    return torch.randn(size).to(dtype)


def adapted(layer, method, **given):
    rank = ranked(method, **given)
    network = nn.Sequential(layer)
    adapt(network, method(targets=["0"], train_fully=[], **rank))
    perturb(network, 0.1)
    return network


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("kind", LAYERS)
def test_dtype__of_the_output_is_the_plain_layers(kind, dtype, dropout, method):
    make, size = LAYERS[kind]
    layer, x = make().to(dtype), example(kind, size, dtype)
    network = adapted(layer, method, dropout=dropout)
    y = network(x)
    assert y.dtype == dtype
    y.float().square().sum().backward()
    assert all(p.grad is not None for p in network[0].adapter.parameters())
    exact = network.eval()(x)
    assert network[0].weight.dtype == dtype
    merge(network)
    # Rounding of a weight and of sums of some 36 products to the dtype.
    steps = 40 * torch.finfo(dtype).eps
    torch.testing.assert_close(network(x), exact, rtol=steps, atol=steps)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", LAYERS)
def test_batch__of_none_gives_none_and_zero_gradients(kind, method):
    make, size = LAYERS[kind]
    plain, x = make(), example(kind, (0, *size[1:]))
    shape = plain(x).shape
    network = adapted(plain, method)
    y = network(x)
    assert y.shape == shape
    y.sum().backward()
    assert all(not p.grad.any() for p in network[0].adapter.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_embedding__padding_row_never_moves(method):
    network = nn.Sequential(nn.Embedding(8, 6, padding_idx=2))
    with torch.no_grad():
        network[0].weight[2] = torch.randn(6)  # torch starts it at 0, which hides much
    row = network[0].weight[2].detach().clone()
    rank = ranked(method)
    adapt(network, method(targets=["0"], train_fully=[], **rank))
    trained = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(trained, 0.5)
    ids = torch.tensor([[1, 2, 0, 2]])
    for _ in range(3):
        optimiser.zero_grad()
        (network(ids) - 1).square().mean().backward()
        optimiser.step()
    assert torch.equal(network(ids)[0, 1], row)
    assert torch.equal(network[0].weight[2], row)
    network.zero_grad()
    network(torch.tensor([2, 2])).sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in trained)
    before = network(ids)
    merge(network)
    assert torch.equal(network[0].weight[2], row)
    torch.testing.assert_close(network(ids), before, rtol=1e-5, atol=1e-6)
