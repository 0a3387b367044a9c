"""Each method against its published formula, written as one einsum or SVD."""

import copy

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
    torch.testing.assert_close(a.delta(network[0].base_weight), expected)


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
    torch.testing.assert_close(a.delta(network[0].base_weight), expected)


def test_lora__conv_delta_follows_pefts_layout():
    network = nn.Sequential(nn.Conv2d(4, 6, 3))
    adapt(network, LoRA(rank=3, alpha=6, targets=["0"], train_fully=[]))
    perturb(network, 1.0)
    a = network[0].adapter
    expected = 2.0 * torch.einsum("or,rihw->oihw", a.up, a.down)
    torch.testing.assert_close(a.delta(network[0].base_weight), expected)


def test_lava__starts_with_orthonormal_factors():
    network = nn.Sequential(nn.Conv2d(8, 6, (3, 1)))
    adapt(network, Lava(rank=4, targets=["0"], train_fully=[]))
    a = network[0].adapter
    torch.testing.assert_close(a.down @ a.down.T, torch.eye(4))
    torch.testing.assert_close(a.kernel[0].norm(dim=1), torch.ones(4))
    assert len(a.kernel) == 1  # the axis of size 1 has no factor
    assert not a.up.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_svdiff__saved_in_a_lower_precision_comes_back(dtype):
    base = nn.Sequential(nn.Linear(64, 64))
    one, two = copy.deepcopy(base), copy.deepcopy(base)
    config = SVDiff(targets=["0"], train_fully=[])
    for network in (one, two):
        adapt(network, config)
    perturb(one)
    state = {k: v.to(dtype) for k, v in one.state_dict().items() if ".adapter." in k}
    two.load_state_dict(state, strict=False)
    shift = one[0].adapter.shift.to(dtype).float()
    assert torch.equal(two[0].adapter.shift, shift)


def test_svdiff__complete_state_dict_onto_another_start():
    one, two = (nn.Sequential(nn.Linear(8, 8)) for _ in "12")
    for network in (one, two):
        adapt(network, SVDiff(targets=["0"], train_fully=[]))
    perturb(one)
    two.load_state_dict(one.state_dict())
    x = torch.randn(3, 8)
    # float32: the decomposition of the same matrix, times a shift of order 1.
    torch.testing.assert_close(two(x), one(x), rtol=1e-4, atol=1e-5)


def test_svdiff__misfit_has_its_own_reason():
    config = SVDiff(targets=["0"], train_fully=[])

    def diagonal(*sigma):
        network = nn.Sequential(nn.Linear(len(sigma), len(sigma), bias=False))
        turn = torch.linalg.qr(torch.randn(len(sigma), len(sigma))).Q
        with torch.no_grad():
            network[0].weight.copy_(turn @ torch.diag(torch.tensor(sigma)))
        adapt(network, config)
        return network

    def tensors(network):
        return {k: v for k, v in network.state_dict().items() if ".adapter." in k}

    apart, other = diagonal(3.0, 2.0, 1.0), diagonal(3.0, 2.0, 1.0)
    with pytest.raises(
        AdapterError, match="not the one that the shift was trained on;"
    ):
        apart.load_state_dict(tensors(other), strict=False)
    equal = diagonal(2.0, 2.0, 2.0)
    with pytest.raises(AdapterError, match=r"\(nearly\) equal singular values"):
        equal.load_state_dict(tensors(other), strict=False)
    with pytest.raises(RuntimeError, match="size mismatch"):
        equal.load_state_dict(tensors(diagonal(2.0, 1.0)), strict=False)
    broken = tensors(apart)
    broken["0.adapter.basis"] = torch.full((3,), torch.nan)
    with pytest.raises(AdapterError, match="another singular basis"):
        apart.load_state_dict(broken, strict=False)


def test_svdiff__another_base_under_a_trained_shift_is_refused():
    one, two = (nn.Sequential(nn.Linear(8, 8)) for _ in "12")
    adapt(one, SVDiff(targets=["0"], train_fully=[]))
    perturb(one)
    with pytest.raises(AdapterError, match="trained in the singular basis of another"):
        one.load_state_dict(two.state_dict(), strict=False)
