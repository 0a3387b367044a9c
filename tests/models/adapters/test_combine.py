import copy

import pytest
import torch
from torch import nn

from models.adapters import (
    AdapterError,
    DoRA,
    Lava,
    LoRA,
    Tucker,
    adapt,
    adapted_layers,
    increments,
    merge,
    weighted,
)


def base() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Flatten(2),
        nn.Linear(64, 16),
        nn.Linear(16, 2),
    ).double()


def adapted(config) -> nn.Sequential:
    network = base()
    adapt(network, config)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    return network


def weights(network) -> dict[str, torch.Tensor]:
    network = copy.deepcopy(network)
    merge(network)
    return network.state_dict()


@pytest.mark.parametrize("rank", [2, 6], ids=["low rank", "above full rank"])
def test_weighted__is_exact_for_mixed_methods(rank):
    common = {"targets": ["0", "2"], "train_fully": ["3"]}
    parts = [
        (adapted(Lava(rank=rank, alpha=3, **common)), 0.7),
        (adapted(LoRA(rank=3, targets=["0"], train_fully=["3"])), -0.4),
        (adapted(Tucker(rank=3, **common)), 1.5),
    ]
    combined = base()
    weighted(combined, [(increments(network), w) for network, w in parts])
    plain, found = base().state_dict(), weights(combined)
    for name, value in plain.items():
        exact = value + sum(w * (weights(n)[name] - value) for n, w in parts)
        torch.testing.assert_close(found[name], exact, rtol=0, atol=1e-10)


def test_weighted__one_part_with_weight_one_is_itself():
    network = adapted(Lava(rank=2, targets=["0", "2"], train_fully=[]))
    combined = base()
    weighted(combined, [(increments(network), 1.0)])
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(combined(x), network(x), rtol=0, atol=1e-12)
    assert [name for name, _ in adapted_layers(combined)] == ["0", "2"]


def test_increments__dora_is_refused():
    network = adapted(DoRA(rank=2, targets=["2"], train_fully=[]))
    with pytest.raises(AdapterError, match="2 has a DoRAAdapter"):
        increments(network)


def test_weighted__another_network_is_refused():
    part = increments(adapted(LoRA(rank=2, targets=["2"], train_fully=[])))
    with pytest.raises(AdapterError, match="has no layer 2"):
        weighted(nn.Sequential(nn.Linear(64, 16)), [(part, 1.0)])
