"""Fast LoRA against the paper's equations, in NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from models.adapters import AdapterError, FastLoRA, adapt, merge
from tests.models.adapters.networks import perturb


def adapted(layer, rank, scale=0.5):
    network = nn.Sequential(layer.double())
    adapt(network, FastLoRA(rank=rank, targets=["0"], train_fully=[]))
    perturb(network, scale)
    return network


def numbers(tensor):
    return tensor.detach().numpy()


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_linear__equals_equation_6_in_numpy(rank):
    network = adapted(nn.Linear(5, 7), rank)
    x = torch.randn(4, 3, 5, dtype=torch.float64)
    layer = network[0]
    w, bias = numbers(layer.base_weight), numbers(layer.bias)
    a, b = numbers(layer.adapter.up), numbers(layer.adapter.down)
    # y = mean over r of A_r o ((B_r o x) W_0), the paper's W_0 being (in, out).
    terms = [a[:, r] * ((b[r] * numbers(x)) @ w.T) for r in range(rank)]
    expected = np.mean(terms, axis=0) + bias
    np.testing.assert_allclose(numbers(network(x)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 2])
def test_linear__gradients_are_those_of_equation_5(rank):
    network = adapted(nn.Linear(5, 7), rank)
    x = torch.randn(6, 5, dtype=torch.float64)
    layer, adapter = network[0], network[0].adapter
    seed = torch.randn(6, 7, dtype=torch.float64)
    network(x).backward(seed)
    # W = (mean_r a_r b_r^T) o W_0, so dL/dW = g^T x and the chain rule by hand.
    slope = (numbers(seed).T @ numbers(x)) * numbers(layer.base_weight) / rank
    a, b = numbers(adapter.up), numbers(adapter.down)
    np.testing.assert_allclose(adapter.up.grad, slope @ b.T, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(adapter.down.grad, a.T @ slope, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("transposed", [False, True])
def test_convolution__scales_inputs_and_outputs(transposed):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    network = adapted(kind(4, 6, 3, stride=2, groups=2, bias=False), 1)
    layer = network[0]
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    out, into = layer.adapter.up[:, 0], layer.adapter.down[0]
    out, into = (v.repeat(n // len(v)) for v, n in ((out, 6), (into, 4)))
    plain = kind(4, 6, 3, stride=2, groups=2, bias=False).double()
    plain.load_state_dict({"weight": layer.base_weight.detach()})
    expected = plain(x * into[:, None, None]) * out[:, None, None]
    torch.testing.assert_close(network(x), expected, rtol=1e-12, atol=1e-12)
    merge(network)
    torch.testing.assert_close(network(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 4, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_start__is_the_base_to_the_bit_and_its_terms_differ(rank, dtype):
    layer = nn.Linear(16, 12).to(dtype)
    before = layer.weight.detach().clone()
    network = nn.Sequential(layer)
    adapt(network, FastLoRA(rank=rank, targets=["0"], train_fully=[]))
    assert torch.equal(network[0].weight, before)
    network[0].weight.float().square().sum().backward()
    gradients = network[0].adapter.down.grad
    assert len(torch.unique(gradients, dim=0)) == rank


def test_options__are_checked():
    with pytest.raises(AdapterError, match="rank 0 must be at least 1"):
        FastLoRA(rank=0)
    with pytest.raises(AdapterError, match="rank 9 is larger than 4"):
        adapt(nn.Sequential(nn.Linear(4, 8)), FastLoRA(rank=9, targets=["0"]))
    network = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))
    config = FastLoRA(targets=["."], train_fully=[], rank_pattern={"^1$": 3})
    adapt(network, config)
    assert [layer.adapter.up.shape[1] for layer in network] == [1, 3]
