"""Against the libraries that people use: PEFT (LoRA, DoRA) and LyCORIS (tucker)."""

import copy

import peft
import pytest
import torch
from lycoris.modules.locon import LoConModule
from torch import nn

from models.adapters import DoRA, Lava, LoRA, adapt, merge

LAYERS = {
    "linear": (lambda: nn.Linear(12, 20), (3, 5, 12)),
    "conv": (lambda: nn.Conv2d(6, 8, 3, stride=2, padding=1), (2, 6, 9, 9)),
    "pointwise": (lambda: nn.Conv2d(6, 8, 1, bias=False), (2, 6, 4, 4)),
}


@pytest.mark.parametrize("method", [LoRA, DoRA])
@pytest.mark.parametrize("stabilised", [False, True], ids=["lora", "rslora"])
@pytest.mark.parametrize("kind", LAYERS)
def test_peft__forward_and_merged_weight_are_equal(kind, stabilised, method):
    make, size = LAYERS[kind]
    ours = nn.Sequential(make())
    theirs = peft.get_peft_model(
        copy.deepcopy(ours),
        peft.LoraConfig(
            r=4,
            lora_alpha=6,
            target_modules=["0"],
            use_dora=method is DoRA,
            use_rslora=stabilised,
        ),
    )
    config = method(
        rank=4, alpha=6, rank_stabilised=stabilised, targets=["0"], train_fully=[]
    )
    adapt(ours, config)
    adapter, layer = ours[0].adapter, theirs.base_model.model[0]
    with torch.no_grad():
        adapter.up.normal_()
        adapter.down.normal_()
        layer.lora_A["default"].weight.copy_(adapter.down)
        layer.lora_B["default"].weight.copy_(
            adapter.up.view_as(layer.lora_B["default"].weight)
        )
        if method is DoRA:
            adapter.magnitude.mul_(1 + torch.rand_like(adapter.magnitude))
            magnitude = layer.lora_magnitude_vector["default"].weight
            magnitude.copy_(adapter.magnitude.view_as(magnitude))
    x = torch.randn(size)
    # float32: sums of up to 54 products of order 1.
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)

    y = ours(x)
    one = torch.autograd.grad(y.square().sum(), [adapter.up, adapter.down])
    names = [layer.lora_B["default"].weight, layer.lora_A["default"].weight]
    two = torch.autograd.grad(theirs(x).square().sum(), names)
    for mine, other in zip(one, two, strict=True):
        torch.testing.assert_close(mine, other.view_as(mine), rtol=1e-4, atol=1e-3)

    merge(ours)
    merged = theirs.merge_and_unload()
    torch.testing.assert_close(ours[0].weight, merged[0].weight, rtol=1e-5, atol=1e-5)


def test_lycoris__tucker_with_a_superdiagonal_core_is_lava():
    base = nn.Conv2d(6, 8, (3, 3), padding=1)
    ours = nn.Sequential(copy.deepcopy(base))
    adapt(ours, Lava(rank=4, alpha=6, targets=["0"], train_fully=[]))
    adapter = ours[0].adapter
    theirs = LoConModule(
        "layer", base, lora_dim=4, alpha=6, use_tucker=True, bypass_mode=False
    )
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_()
        rows, cols = adapter.kernel
        theirs.lora_up.weight.copy_(adapter.up[:, :, None, None])
        theirs.lora_down.weight.copy_(adapter.down[:, :, None, None])
        core = torch.einsum("rh,rw->rhw", rows, cols)
        theirs.lora_mid.weight.zero_()
        for i in range(4):
            theirs.lora_mid.weight[i, i] = core[i]
        delta, _ = theirs.get_diff_weight()
    torch.testing.assert_close(delta, adapter.delta(base.weight), rtol=1e-5, atol=1e-5)
