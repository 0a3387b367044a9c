"""Adapters trained in one mixed run are those that were trained apart."""

import copy

import pytest
import torch
from torch import nn

from models.adapters import AdapterBank, DoRA, FastLoRA, Lava
from models.adapters.each import clip_each, examples_of, losses_of_each
from tests.models.adapters.bank.banks import base, member, off_start

CONFIGS = {
    "rooms": Lava(rank=2, targets=["0", "3", "7"], train_fully=["4"]),
    "streets": DoRA(rank=2, targets=["3", "5"], train_fully=["1"]),
    "fast": FastLoRA(targets=["3", "5"], train_fully=[]),
}
STEPS = [
    ["rooms", "streets", "rooms", "fast"],
    ["rooms", "rooms", "rooms", "rooms"],
    ["streets", "fast", None, "streets"],
    ["fast", "streets", "rooms", "fast"],
]


def train(network, bank, steps, images, truths):
    optimizer = torch.optim.AdamW(bank.parameters(), 1e-2, weight_decay=0.1)
    network.train()
    for names, image, truth in zip(steps, images, truths, strict=True):
        optimizer.zero_grad()
        with bank.select(names):
            y = network(image)

            def loss(own, y=y, truth=truth):
                return (y[own] - truth[own]).square().mean()

            each = losses_of_each(bank, names, loss)
            torch.stack(list(each.values())).sum().backward()
        clip_each(bank, 0.05)
        optimizer.step()


def test_mixed_run__equals_each_adapter_trained_alone():
    network = base()
    bank = AdapterBank(network)
    for name, config in CONFIGS.items():
        bank.adapt(name, config)
    starts = {name: copy.deepcopy(member(bank, name).state_dict()) for name in CONFIGS}
    images = torch.randn(len(STEPS), 4, 3, 8, 8, dtype=torch.float64)
    truths = torch.randn(len(STEPS), *network(images[0]).shape, dtype=torch.float64)
    train(network, bank, STEPS, images, truths)
    for name, config in CONFIGS.items():
        alone = base()
        own_bank = AdapterBank(alone)
        own_bank.adapt(name, config)
        member(own_bank, name).load_state_dict(starts[name])
        own = [
            (i, examples_of(names)[name])
            for i, names in enumerate(STEPS)
            if name in names
        ]
        train(
            alone,
            own_bank,
            [[name] * len(places) for _, places in own],
            [images[i][places] for i, places in own],
            [truths[i][places] for i, places in own],
        )
        mixed = member(bank, name).state_dict()
        for key, value in member(own_bank, name).state_dict().items():
            # Float64 and four steps of AdamW, whose first divides by |gradient|.
            torch.testing.assert_close(mixed[key], value, rtol=1e-7, atol=1e-9)
            moves = "num_batches" in key or not torch.equal(value, starts[name][key])
            assert moves, key


def test_unused__do_not_move_and_have_no_state():
    network = base()
    bank = AdapterBank(network)
    for name in ("a", "b"):
        bank.adapt(name, Lava(rank=2, targets=["3"], train_fully=["4"]))
    before = copy.deepcopy(member(bank, "b").state_dict())
    optimizer = torch.optim.AdamW(bank.parameters(), 1e-2, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        with bank.select(["a", None, "a"]):
            network(torch.randn(3, 3, 8, 8, dtype=torch.float64)).sum().backward()
        optimizer.step()
    for key, value in member(bank, "b").state_dict().items():
        assert torch.equal(value, before[key])
    assert set(optimizer.state) == set(member(bank, "a").parameters())


def test_accumulation__of_two_halves_is_the_whole():
    network = base()
    bank = AdapterBank(network)
    for name in ("a", "b"):
        bank.adapt(name, Lava(rank=2, targets=["0", "3"], train_fully=["4"]))
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    names = ["a", "b", "a", None]
    with bank.select(names):
        network(x).square().sum().backward()
    whole = [p.grad.clone() for p in bank.parameters()]
    bank.zero_grad()
    for half in (slice(0, 2), slice(2, 4)):
        with bank.select(names[half]):
            network(x[half]).square().sum().backward()
    for one, two in zip(whole, bank.parameters(), strict=True):
        torch.testing.assert_close(one, two.grad, rtol=1e-10, atol=1e-10)


def test_checkpointing__recomputes_with_the_same_selection():
    network = base()
    bank = AdapterBank(network)
    for name in ("a", "b"):
        bank.adapt(name, Lava(rank=2, targets=["0", "3"], train_fully=[]))
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    with bank.select(["b", "a"]):
        network(x).square().sum().backward()
    expected = [p.grad.clone() for p in bank.parameters()]
    bank.zero_grad()
    with bank.select(["b", "a"]):
        y = torch.utils.checkpoint.checkpoint(network, x, use_reentrant=False)
        y.square().sum().backward()
    for one, two in zip(expected, bank.parameters(), strict=True):
        torch.testing.assert_close(one, two.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("names", [["a", "b", None], ["a", "a", "a"]])
def test_compile__of_a_network_gives_what_eager_gives(names):
    network = base()
    bank = AdapterBank(network)
    for name in ("a", "b"):
        bank.adapt(name, Lava(rank=2, targets=["0", "3"], train_fully=["4"]))
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    compiled = torch.compile(network, backend="aot_eager")
    found = []
    for run in (network, compiled):
        for chosen in (names, names[::-1]):
            bank.zero_grad()
            with bank.select(chosen):
                y = run(x)
            y.square().sum().backward()
            gradients = [
                p.grad.clone() for p in bank.parameters() if p.grad is not None
            ]
            found.append([y.detach(), *gradients])
    for eager, own in zip(found[:2], found[2:], strict=True):
        for one, two in zip(eager, own, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_compile__of_a_layer_follows_the_selection():
    network = nn.Sequential(nn.Linear(4, 3)).double()
    bank = AdapterBank(network)
    for seed, name in enumerate("ab"):
        bank.adapt(name, Lava(rank=2, targets=["0"], train_fully=[]))
        off_start(member(bank, name), seed)
    compiled = torch.compile(network, backend="eager")
    x = torch.randn(3, 4, dtype=torch.float64)
    for names in (["a", "b", None], ["b", "b", "a"]):
        with bank.select(names):
            torch.testing.assert_close(compiled(x), network(x), rtol=0, atol=1e-12)
