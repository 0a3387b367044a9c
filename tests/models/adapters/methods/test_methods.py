"""Each method against its published formula, written as one einsum or SVD."""

import pytest
import torch
from torch import nn

from models.adapters import (
    AdapterError,
    DoRA,
    Lava,
    LoRA,
    SVDiff,
    Tucker,
    adapt,
)
from tests.models.adapters.networks import perturb


def test_dora__equals_its_formula():
    network = nn.Sequential(nn.Conv2d(4, 6, 3))
    adapt(network, DoRA(rank=3, alpha=6, targets=["0"], train_fully=[]))
    perturb(network, 1.0)
    a, weight = network[0].adapter, network[0].base_weight
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
    a, weight = network[0].adapter, network[0].base_weight.detach()
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
