"""What cannot be adapted, merged or taken back: one AdapterError, nothing changed."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm
from torch.nn.utils.parametrize import register_parametrization

from models.adapters import (
    AdapterError,
    DoRA,
    Lava,
    LoRA,
    SVDiff,
    adapt,
    adapted_layers,
    merge,
    unmerge,
)
from tests.models.adapters.networks import perturb

LORA = LoRA(rank=2, targets=["0", "1"], train_fully=[])


def pair(last: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), last or nn.Linear(4, 4))


def hooked() -> nn.Linear:
    layer = nn.Linear(4, 4)
    layer.forward = layer.forward  # as accelerate's add_hook_to_module does
    return layer


def parametrized(attribute: str) -> nn.Linear:
    layer = nn.Linear(4, 4)
    register_parametrization(layer, attribute, nn.Identity())
    return layer


def old_weight_norm() -> nn.Module:
    with pytest.warns(FutureWarning, match="deprecated"):
        return nn.utils.weight_norm(nn.Linear(4, 4))


def int8() -> nn.Linear:
    layer = nn.Linear(4, 4)
    weight = torch.ones(4, 4, dtype=torch.int8)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer


def nan() -> nn.Linear:
    layer = nn.Linear(4, 4)
    nn.init.constant_(layer.weight, torch.nan)
    return layer


class PackedLinear(nn.Module):
    """As torch's own quantised layers: the sizes of a linear, no weight."""

    in_features = out_features = 4


class Sharing(nn.Module):
    """Reads another layer's weight under a name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.copy = self.layer.weight


STRANGE = {
    "weight_norm": (lambda: parametrizations.weight_norm(nn.Linear(4, 4)), "parametr"),
    "old weight_norm": (old_weight_norm, "WeightNorm"),
    "spectral_norm": (lambda: spectral_norm(nn.Linear(4, 4)), "SpectralNorm"),
    "pruned": (
        lambda: prune.l1_unstructured(nn.Linear(4, 4), "weight", 0.3),
        "L1Unstructured",
    ),
    "parametrized": (lambda: parametrized("weight"), "is parametrized"),
    "bias parametrized": (lambda: parametrized("bias"), "is parametrized"),
    "lazy": (lambda: nn.LazyLinear(4), "is lazy"),
    "forward on the instance": (hooked, "forward of its own"),
    "int8": (int8, r"is quantised \(torch.int8\)"),
    "packed": (PackedLinear, "PackedLinear, a quantised layer"),
    "meta": (lambda: nn.Linear(4, 4, device="meta"), "no values yet"),
    "max_norm": (lambda: nn.Embedding(4, 4, max_norm=1.0), "max_norm"),
    "rank": (lambda: nn.Linear(4, 1), "rank 2 is larger than 1"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_adapt__strange_layer_is_refused_by_name(kind):
    make, reason = STRANGE[kind]
    network = pair(make())
    classes = [type(module) for module in network.modules()]
    with pytest.raises(AdapterError, match=rf"^1\b.*{reason}"):
        adapt(network, LORA)
    assert [type(module) for module in network.modules()] == classes
    assert list(network[0].state_dict()) == ["weight", "bias"]
    assert all(p.requires_grad for p in network[0].parameters())


def test_adapt__weight_that_another_module_reads_is_refused():
    with pytest.raises(AdapterError, match=r"shares its weight with copy, which"):
        adapt(Sharing(), LoRA(rank=2, targets=["layer"], train_fully=[]))


def test_adapt__weight_that_is_trained_elsewhere_is_refused():
    network = pair()
    network[1].weight = network[0].weight
    with pytest.raises(AdapterError, match=r"0 is in targets and, with 1, in train_"):
        adapt(network, LoRA(rank=2, targets=["0"], train_fully=["1"]))


def test_adapt__any_exception_leaves_the_network_unchanged(monkeypatch):
    network = pair()

    def fail(*args):
        raise MemoryError

    monkeypatch.setattr(SVDiff, "build", fail)
    with pytest.raises(MemoryError):
        adapt(network, SVDiff(targets=["."], train_fully=[]))
    assert not list(adapted_layers(network))
    assert all(p.requires_grad for p in network.parameters())


def test_adapt__svdiff_of_a_weight_that_is_not_finite_is_refused():
    with pytest.raises(AdapterError, match="1: a weight that is not finite"):
        adapt(pair(nan()), SVDiff(targets=["."], train_fully=[]))


@pytest.mark.parametrize("method", [DoRA, SVDiff])
def test_adapt__layer_of_zeros_that_would_never_train_is_named(method):
    network = pair()
    nn.init.zeros_(network[1].weight)
    rank = {} if method is SVDiff else {"rank": 2}
    with pytest.warns(UserWarning, match=r"^1 is zero.*never be trained"):
        adapt(network, method(targets=["."], train_fully=[], **rank))


def test_weight__of_an_adapted_layer_cannot_be_parametrized():
    network = pair()
    adapt(network, LORA)
    before = dict(network.state_dict())
    for change in (parametrizations.weight_norm, spectral_norm):
        with pytest.raises(AdapterError, match=r"^1\.weight is computed"):
            change(network[1])
    assert network.state_dict().keys() == before.keys()
    with pytest.raises(AdapterError, match=r"^1\.weight is computed"):
        network[1].__class__.weight.__set__(network[1], before["1.weight"])


def test_merge__layer_parametrized_since_is_refused():
    network = pair()
    adapt(network, LORA)
    register_parametrization(network[1], "bias", nn.Identity())
    with pytest.raises(AdapterError, match="1 has become a Parametrized"):
        merge(network)
    assert len(list(adapted_layers(network))) == 2
    parametrize.remove_parametrizations(network[1], "bias")
    assert len(merge(network).bases) == 2


def adapted_again(network) -> None:
    adapt(network, LORA)


def replaced(network) -> None:
    network[1] = nn.Linear(4, 4)


def trained(network) -> None:
    with torch.no_grad():
        network[1].weight.add_(1)


CHANGES = {
    "adapted again": adapted_again,
    "layer replaced": replaced,
    "merged weight trained": trained,
    "dtype": lambda network: network.bfloat16(),
    "layer gone": lambda network: network.__delitem__(1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_unmerge__network_that_changed_is_refused(change):
    network = pair()
    adapt(network, LORA)
    perturb(network)
    merged = merge(network)
    CHANGES[change](network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(AdapterError, match=r"not as merging left it: [01] "):
        unmerge(network, merged)
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_unmerge__twice_is_refused():
    network = pair()
    adapt(network, Lava(rank=2, targets=["."], train_fully=[]))
    merged = merge(network)
    unmerge(network, merged)
    with pytest.raises(AdapterError, match="is a AdaptedLinear, not a merged Linear"):
        unmerge(network, merged)


class Experts(nn.Module):
    """As `transformers` keeps them: (experts, out, in)."""

    def __init__(self) -> None:
        super().__init__()
        self.num_experts = 3
        self.down_proj = nn.Parameter(torch.randn(3, 4, 5))


def test_experts__stacked_in_one_tensor_are_refused():
    network = nn.Sequential(nn.Linear(4, 4), Experts())
    config = Lava(rank=1, targets=["0"], parameters=[r"1\.down_proj"], train_fully=[])
    with pytest.raises(AdapterError, match=r"1\.down_proj stacks the weights of 3 exp"):
        adapt(network, config)
    assert not list(adapted_layers(network))
