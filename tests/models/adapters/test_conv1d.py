"""GPT-2's `Conv1D`, a linear whose weight is stored (in, out)."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from models.adapters import DoRA, Lava, LoRA, SVDiff, Tucker, adapt, merge, unmerge
from models.adapters.layers import shape_of
from tests.models.adapters.networks import perturb, ranked


@pytest.mark.parametrize("method", [Lava, LoRA, DoRA, Tucker, SVDiff])
def test_conv1d__equals_the_linear_with_its_weight_turned(method):
    ours = nn.Sequential(Conv1D(6, 8)).double()
    linear = nn.Sequential(nn.Linear(8, 6)).double()
    with torch.no_grad():
        linear[0].weight.copy_(ours[0].weight.T)
        linear[0].bias.copy_(ours[0].bias.normal_())
    x, base = torch.randn(2, 5, 8).double(), ours[0].weight
    before = ours(x)
    rank = ranked(method, 3)
    config = method(targets=["0"], train_fully=[], **rank)
    for network in (ours, linear):
        torch.manual_seed(0)
        adapt(network, config)
    assert isinstance(ours[0], Conv1D)
    trained = [p for p in ours.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == config.count(shape_of(ours[0]))
    torch.testing.assert_close(ours(x), before, rtol=1e-12, atol=1e-12)
    perturb(ours)
    linear[0].adapter.load_state_dict(ours[0].adapter.state_dict())
    y = ours(x)
    torch.testing.assert_close(y, linear(x), rtol=1e-12, atol=1e-12)
    y.sum().backward()
    linear(x).sum().backward()
    pairs = zip(
        ours[0].adapter.parameters(), linear[0].adapter.parameters(), strict=True
    )
    for one, two in pairs:
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-10, atol=1e-10)
    merged = merge(ours)
    assert type(ours[0]) is Conv1D
    torch.testing.assert_close(ours(x), y, rtol=1e-12, atol=1e-12)
    unmerge(ours, merged)
    assert ours[0].base_weight is base


# `models` itself imports the depth networks: in its place a bare package.
ALONE = """
import sys, types
sys.modules["models"] = types.ModuleType("models")
sys.modules["models"].__path__ = ["models"]
import models.adapters
print({"transformers", "peft", "timm", "lightning"} & {*sys.modules})
"""


def test_adapters__import_no_other_library():
    found = subprocess.run(
        [sys.executable, "-c", ALONE], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "set()"
