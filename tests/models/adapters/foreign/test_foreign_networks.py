"""Every linear and convolution of networks that know nothing of adapters.

None of them is refused; one that is fails its test with the AdapterError that says why.
"""

import warnings

import pytest
import torch
from torch import nn

from models.adapters import (
    adapt,
    adapted_layers,
    is_never_trained,
    merge,
    unmerge,
    unreached,
)
from models.adapters.state import adapter_names
from tests.models.adapters.foreign.foreign_networks import NETWORKS
from tests.models.adapters.networks import INCREMENTS, perturb, ranked

METHODS = INCREMENTS
TIED = tuple(f"transformers {name}" for name in ("Qwen2", "GPT-2", "BERT", "Mamba"))
"""Networks whose output layer is their embedding; every adapter on it says so."""


def targets(network) -> list[str]:
    """Names of all linears and convolutions, GPT-2's too."""
    sized = (nn.Linear, nn.modules.conv._ConvNd)
    return [
        name
        for name, module in network.named_modules()
        if (isinstance(module, sized) or type(module).__name__ == "Conv1D")
        and not is_never_trained(network, name)
    ]


def close(one, two) -> None:
    """Equal to the rounding of some twenty layers in float32."""
    scale = two.detach().abs().max().clamp(min=1e-3)
    torch.testing.assert_close(one / scale, two / scale, rtol=0, atol=2e-4)


@pytest.fixture(autouse=True)
def _known_warnings(request):
    with warnings.catch_warnings():
        if request.node.callspec.params["name"] in TIED:
            warnings.filterwarnings("ignore", ".* are tied")
        yield


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
@pytest.mark.parametrize("name", NETWORKS)
def test_adapt__contract_holds_on_foreign_networks(name, method):
    foreign = NETWORKS[name]
    network = foreign.build()
    before = foreign.output(network).detach()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    names = targets(network)
    given = ranked(method, 1)
    config = method(targets=[f"^({'|'.join(names)})$"], train_fully=[], **given)

    adapted = adapt(network, config)
    tied = {id(m.weight): n for n, m in foreign.build().named_modules() if n in names}
    assert len(adapted) == len(tied)
    assert {n for n, _ in adapted_layers(network)} == set(adapted)
    close(foreign.output(network), before)
    assert unreached(network) == []

    perturb(network, 0.02)
    output = foreign.output(network)
    assert (output - before).abs().max() > 1e-3 * before.abs().max()
    output.square().mean().backward()
    trained = [n for n, p in network.named_parameters() if p.requires_grad]
    lost = [n for n in trained if network.get_parameter(n).grad is None]
    assert trained
    assert not lost

    saved = {n: network.state_dict()[n].clone() for n in adapter_names(network)}
    fresh = foreign.build()
    adapt(fresh, config)
    assert adapter_names(fresh) == list(saved)
    fresh.load_state_dict(saved, strict=False)
    output = output.detach()
    assert torch.equal(foreign.output(fresh), output)

    with torch.no_grad():
        merged = merge(network)
        close(foreign.output(network), output)
        assert list(network.state_dict()) == list(state)
        again = foreign.build()
        again.load_state_dict(network.state_dict())
        close(foreign.output(again), output)
    unmerge(network, merged)
    assert torch.equal(foreign.output(network), output)
    now = network.state_dict()
    assert all(torch.equal(now[key], value) for key, value in state.items())
