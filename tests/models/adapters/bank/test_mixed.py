"""A batch of many adapters equals its examples one by one, values and gradients."""

import copy
import itertools

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from models.adapters import (
    AdapterBank,
    DoRA,
    FastLoRA,
    Lava,
    LoRA,
    OpenedAdapter,
    SVDiff,
    TrainFully,
    Tucker,
    adapt,
)
from models.adapters.layers import shape_of
from models.adapters.state import adapter_names
from tests.models.adapters.bank.banks import (
    CONFIGS,
    base,
    filled,
    member,
    off_start,
    one_by_one,
    trained,
)
from tests.models.adapters.networks import INCREMENTS, ranked
from tests.models.adapters.test_layers import (
    convolutions,
    example_input,
    expressible,
    linears,
)

EXACT = {"rtol": 0, "atol": 1e-10}
NAMES = [*CONFIGS, None]


@pytest.fixture(scope="module")
def bank_of_all():
    return filled(CONFIGS)


@settings(max_examples=40, deadline=None)
@given(
    names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=9),
    seed=st.integers(0, 99),
)
def test_batch__of_any_assignment_is_its_examples(bank_of_all, names, seed):
    network, bank, alone = bank_of_all
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(names), 3, 8, 8, dtype=torch.float64, generator=generator)
    with bank.select(names):
        mixed = network(x)
    torch.testing.assert_close(mixed, one_by_one(alone, names, x), **EXACT)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@settings(max_examples=60, deadline=None)
@example(
    (nn.Conv1d(2, 1, 1, dtype=torch.float64), (2, 2, 7)), [Lava], 1, [0, 0, 1], False
)
@given(
    case=st.one_of(convolutions(), convolutions(), linears()),
    methods=st.lists(st.sampled_from(INCREMENTS), min_size=1, max_size=3),
    rank=st.integers(1, 3),
    assignment=st.lists(st.integers(0, 3), min_size=1, max_size=5),
    whole=st.booleans(),
)
def test_layer__of_any_geometry_and_method(case, methods, rank, assignment, whole):
    layer, size = case
    if size is not None and len(size) == 1:
        size = (1, *size)
    state = {n: t.clone() for n, t in layer.state_dict().items()}
    shape = shape_of(layer)

    def make():
        network = nn.Sequential(copy.deepcopy(layer))
        network.load_state_dict({f"0.{n}": t for n, t in state.items()})
        return network

    configs = {}
    for i, method in enumerate(methods):
        if expressible(method, layer):
            given = ranked(method, min(rank + i, shape.max_rank))
            configs[str(i)] = method(targets=["0"], train_fully=[], **given)
    if whole:
        configs["whole"] = TrainFully(train_fully=["0"])
    network, bank, alone = filled(configs, make)
    known = [*configs, None]
    names = [known[i % len(known)] for i in assignment]
    x = torch.cat([example_input(layer, (1, *size[1:])) for _ in names])
    with bank.select(names):
        mixed = network(x)
    torch.testing.assert_close(mixed, one_by_one(alone, names, x), **EXACT)


@pytest.mark.parametrize("tokens", [1, 40], ids=["few rows", "many rows"])
@pytest.mark.parametrize("name", [n for n in CONFIGS if n != "tucker"])
def test_gradient__reaches_exactly_the_adapters_used(name, tokens):
    """Few rows take the factored or gathered path, many the hybrid one."""

    def make():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(6, 6),
            nn.Linear(6, 6),
            nn.GELU(),
            nn.Linear(6, 8),
            nn.LayerNorm(8),
            nn.Linear(8, 5),
        ).double()

    own = {
        "lava": Lava(rank=2, targets=["0", "1"], train_fully=["4"]),
        "lora": LoRA(rank=3, alpha=5, targets=["0", "3"], train_fully=["5"]),
        "dora": DoRA(rank=2, targets=["0", "3"], train_fully=["5"]),
        "svdiff": SVDiff(targets=["0", "3"], train_fully=["4"]),
        "fast": FastLoRA(targets=["0", "3"], train_fully=[]),
        "fast 2": FastLoRA(rank=2, targets=["0", "3"], train_fully=[]),
        "head": TrainFully(train_fully=["5"]),
    }
    network = make()
    bank = AdapterBank(network)
    for seed, (called, config) in enumerate(own.items()):
        bank.adapt(called, config)
        off_start(member(bank, called), seed)
    others = [n for n in own if n != name]
    names = [name, others[0], None, name, name, others[1], others[0]]
    x = torch.randn(len(names), tokens, 6, dtype=torch.float64, requires_grad=True)
    seed = torch.randn(len(names), tokens, 5, dtype=torch.float64)

    with bank.select(names):
        network(x).backward(seed)
    found, to_x = {n: p.grad for n, p in bank.named_parameters()}, x.grad
    bank.zero_grad()
    x.grad = None
    for i, called in enumerate(names):
        with bank.select(called):
            network(x[i : i + 1]).backward(seed[i : i + 1])
    torch.testing.assert_close(to_x, x.grad, **EXACT)
    used = {n for n in names if n is not None}
    for parameter_name, parameter in bank.named_parameters():
        is_used = parameter_name.split(".")[1] in used
        assert (found[parameter_name] is not None) == is_used, parameter_name
        if is_used:
            torch.testing.assert_close(found[parameter_name], parameter.grad, **EXACT)


@pytest.mark.parametrize("name", ["lava", "dora", "tucker", "svdiff", "fast", "head"])
def test_gradient__through_convolutions_and_norms(name):
    network = base()
    bank = AdapterBank(network)
    for seed, called in enumerate((name, "lora")):
        bank.adapt(called, CONFIGS[called])
        off_start(member(bank, called), seed)
    names = [name, "lora", None, name]
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    network.eval()
    with bank.select(names):
        y = network(x)
        y.square().sum().backward()
    found = {n: p.grad for n, p in bank.named_parameters()}
    bank.zero_grad()
    for i, called in enumerate(names):
        if called is not None:
            with bank.select(called):
                network(x[i : i + 1]).square().sum().backward()
    for n, parameter in bank.named_parameters():
        torch.testing.assert_close(found[n], parameter.grad, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast__is_within_its_dtype(dtype):
    configs = {n: CONFIGS[n] for n in ("lava", "lora", "dora", "tucker", "fast")}
    network, bank, alone = filled(configs, lambda: base(torch.float32))
    names = ["lava", None, "lora", "dora", "lava", "tucker", "fast"]
    x = torch.randn(len(names), 3, 8, 8)
    exact = one_by_one(alone, names, x)
    with torch.autocast("cpu", dtype), bank.select(names):
        mixed = network(x)
    assert mixed.dtype == dtype
    with torch.autocast("cpu", dtype):
        apart = one_by_one(alone, names, x)
    # As far from the truth as one by one, up to the rounding of another order of sums.
    allowed = 2 * (apart.float() - exact).abs().max() + torch.finfo(dtype).eps
    assert (mixed.float() - exact).abs().max() <= allowed


def test_low_precision__gathers_factors_of_several_ranks():
    """Only thin routes and bfloat16: the gathered path, with gradients."""

    def make():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(32, 24)).bfloat16()

    configs = {
        "a": LoRA(rank=2, targets=["0"], train_fully=[]),
        "b": DoRA(rank=5, targets=["0"], train_fully=[]),
        "c": Tucker(rank=3, targets=["0"], train_fully=[]),
    }
    network = make()
    bank = AdapterBank(network)
    for seed, (name, config) in enumerate(configs.items()):
        bank.adapt(name, config)
        off_start(member(bank, name), seed, 0.1)
    names = ["b", "a", None, "a", "c"]
    x = torch.randn(5, 7, 32).bfloat16().requires_grad_()
    results = []
    for chosen in (names, None):
        bank.zero_grad()
        x.grad = None
        if chosen is None:
            parts = []
            for i, name in enumerate(names):
                with bank.select(name):
                    parts.append(network(x[i : i + 1]))
            y = torch.cat(parts)
        else:
            with bank.select(chosen):
                y = network(x)
        y.float().square().sum().backward()
        results.append([y, x.grad, *(p.grad.clone() for p in bank.parameters())])
    for one, two in zip(*results, strict=True):
        scale = two.float().abs().max()
        assert (one.float() - two.float()).abs().max() <= 0.03 * scale


def test_windows__rows_of_an_example_lie_together():
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            return self.linear(x.flatten(0, 1)).view(x.shape)

    def make():
        torch.manual_seed(0)
        return Windows().double()

    configs = {"a": LoRA(rank=2, targets=["linear"], train_fully=[])}
    network, bank, alone = filled(configs, make)
    x = torch.randn(3, 5, 2, 4, dtype=torch.float64)
    names = ["a", None, "a"]
    with bank.select(names):
        mixed = network(x)
    torch.testing.assert_close(mixed, one_by_one(alone, names, x), **EXACT)


def test_batch_norm__in_training_keeps_statistics_apart():
    network = base()
    bank = AdapterBank(network)
    bank.adapt("a", CONFIGS["lora"])
    bank.adapt("b", CONFIGS["tucker"])
    before = network[1]._buffers["running_mean"].clone()
    x = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    network.train()
    with bank.select(["a", "b", "a", "b", "b", "a"]):
        mixed = network(x)
    fresh = base().train()
    other = AdapterBank(fresh)
    other.adapt("a", CONFIGS["lora"])
    state = member(bank, "a").state_dict()
    factors = {n: t for n, t in state.items() if "running" not in n}
    member(other, "a").load_state_dict(factors, strict=False)
    with other.select("a"):
        expected = fresh(x[[0, 2, 5]])
    torch.testing.assert_close(mixed[[0, 2, 5]], expected, **EXACT)
    one, two = (member(b, "a").tensor("1.running_mean") for b in (bank, other))
    torch.testing.assert_close(one, two, **EXACT)
    assert torch.equal(network[1]._buffers["running_mean"], before)


@pytest.mark.parametrize("names", list(itertools.permutations(["own", None, "c"])))
def test_batch__beside_an_adapter_with_a_base_weight_of_its_own(names):
    """float32 and many rows: weights are turned once for those that share one."""

    def make():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))

    config = LoRA(rank=2, targets=["^0$", "^2$"], train_fully=[])
    bank, alone = AdapterBank(make()), {None: make()}
    for seed, name in enumerate(["own", "c"]):
        network = alone[name] = make()
        adapt(network, config)
        off_start(network, seed)
        also = ["2.weight"] if name == "own" else []
        if also:
            with torch.no_grad():
                network[2]._parameters["weight"].add_(1.0)
        state = network.state_dict()
        tensors = {n: state[n].clone() for n in adapter_names(network, also)}
        bank.add(name, OpenedAdapter(config, tensors, None))
    x = torch.randn(len(names), 64, 16)
    with torch.no_grad(), bank.select(list(names)):
        mixed = bank.network(x)
    with torch.no_grad():
        apart = torch.cat([alone[n](x[i : i + 1]) for i, n in enumerate(names)])
    torch.testing.assert_close(mixed, apart, rtol=1e-5, atol=1e-5)


def test_gain__follows_the_adapters_own_tensors():
    def bank_of(seed):
        network, opened = trained(CONFIGS["dora"], seed)
        bank = AdapterBank(base())
        bank.add("d", opened)
        return network, bank

    _, bank = bank_of(1)
    network, other = bank_of(2)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad(), bank.select("d"):
        bank.network(x)
        bank.load_state_dict(other.state_dict())
        torch.testing.assert_close(bank.network(x), network(x), **EXACT)


def test_gain__of_inference_mode_serves_training_beside_it():
    _, opened = trained(CONFIGS["dora"])
    bank = AdapterBank(base())
    bank.add("d", opened)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with torch.inference_mode(), bank.select("d"):
        before = bank.network(x).clone()
    x.requires_grad_()
    with bank.select("d"):
        found = bank.network(x)
        found.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(
        found.detach(), torch.tensor(before.tolist(), dtype=torch.float64), **EXACT
    )
