"""The orthogonality penalty against brute force."""

import pytest
import torch
from torch import nn

from models.adapters import (
    Lava,
    LoRA,
    Tucker,
    adapt,
    adapted_layers,
    orthogonality,
)
from tests.models.adapters.networks import perturb, stack


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
