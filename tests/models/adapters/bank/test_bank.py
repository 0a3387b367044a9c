"""The bank itself: names, bases, generations, threads, and back to one adapter."""

import copy
import random
import threading
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from models.adapters import (
    AdapterBank,
    AdapterError,
    Lava,
    LoRA,
    adapt,
    adapters,
    disabled,
    merge,
    unmerge,
)
from models.adapters.opened import fingerprint
from models.adapters.routed import Routed
from models.adapters.state import adapter_names
from tests.models.adapters.bank.banks import (
    CONFIGS,
    base,
    filled,
    member,
    one_by_one,
    trained,
)


def images(count=3):
    return torch.randn(count, 3, 8, 8, dtype=torch.float64)


def some(*names):
    return filled({name: CONFIGS[name] for name in names})


def test_base__is_bit_equal_and_keeps_its_names():
    plain, x = base(), images()
    network, bank, _ = some("lava", "svdiff", "head", "lora")
    assert list(network.state_dict()) == list(plain.state_dict())
    assert fingerprint(network) == fingerprint(plain)
    assert torch.equal(network(x), plain(x))
    for nothing in (None, [None] * 3):
        with bank.select(nothing):
            assert torch.equal(network(x), plain(x))
    assert not any(p.requires_grad for p in (*network.parameters(), *bank.parameters()))


def test_single__is_bit_equal_to_the_adapted_network():
    x = images()
    network, bank, alone = filled(CONFIGS)
    for name in CONFIGS:
        for chosen in (name, [name] * 3):
            with bank.select(chosen):
                assert torch.equal(network(x), alone[name](x)), name


def test_select__nests_and_ends():
    x = images()
    network, bank, alone = some("lava", "lora")
    with bank.select("lava"):
        with bank.select(["lora", None, "lava"]):
            mixed = network(x)
        with bank.select(None):
            assert torch.equal(network(x), alone[None](x))
        with disabled(network):
            assert torch.equal(network(x), alone[None](x))
        assert torch.equal(network(x), alone["lava"](x))
    expected = one_by_one(alone, ["lora", None, "lava"], x)
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-10)
    assert torch.equal(network(x), alone[None](x))


def test_opened__comes_back_bit_by_bit():
    _, bank, alone = filled(CONFIGS)
    for name, config in CONFIGS.items():
        opened = bank.opened(name)
        state = alone[name].state_dict()
        assert opened.config == config
        assert sorted(opened.tensors) == sorted(adapter_names(alone[name]))
        for key, value in opened.tensors.items():
            assert torch.equal(value, state[key])
        other = AdapterBank(base())
        other.add("again", opened)


def test_rename_and_remove__leave_the_others():
    x = images()
    network, bank, alone = some("lava", "lora", "head")
    bank.rename("lora", "Küche 2")
    assert bank.names == ("lava", "Küche 2", "head")
    with bank.select("Küche 2"):
        assert torch.equal(network(x), alone["lora"](x))
    first = bank.generation("lava")
    bank.remove("lava")
    assert "lava" not in bank
    assert len(bank) == 2
    bank.add("lava", trained(CONFIGS["dora"], 5)[1])
    assert bank.generation("lava") > first
    with bank.select("lava"):
        torch.testing.assert_close(network(x), trained(CONFIGS["dora"], 5)[0](x))


def test_errors__are_one_line_each():
    network, bank, _ = some("lava", "lora")
    _, opened = trained(CONFIGS["head"])
    x = images()

    def refused(message, call):
        with pytest.raises(AdapterError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert bank.names == ("lava", "lora")

    def run(names, count=3):
        with bank.select(names):
            network(x[:count])

    other = replace(opened, base_sha256="0" * 64)
    refused(
        "trained on a base with SHA-256 000000000000...", lambda: bank.add("b", other)
    )
    refused("no adapter 'shed'; it has lava, lora", lambda: run("shed"))
    refused("no adapter 'shed'", lambda: run(["lava", "shed", None]))
    refused("2 adapters are selected for a batch of 3", lambda: run(["lava", None]))
    refused("1 adapters are selected for a batch of 2", lambda: run(["lava"], 2))
    refused("4 adapters are selected for a batch of 3", lambda: run(["lava"] * 4))
    refused("has a bank of 2 adapters .lava, lora.", lambda: merge(network))
    refused("adapters already", lambda: adapt(network, LoRA(targets=["3"])))
    refused("adapters already", lambda: AdapterBank(network))
    refused("'lava' already; remove or rename", lambda: bank.add("lava", opened))
    refused("'lava' already", lambda: bank.rename("lora", "lava"))
    refused("'a/b' is no name for an adapter", lambda: bank.add("a/b", opened))
    refused("no adapter 'shed'", lambda: bank.remove("shed"))
    with bank.select(["lora", None]):
        refused("lora is in use by 1 running batches", lambda: bank.remove("lora"))
        refused("lora is in use", bank.close)
    short = dict(list(opened.tensors.items())[1:])
    refused("is missing, where", lambda: bank.add("b", replace(opened, tensors=short)))
    more = {**opened.tensors, "9.weight": torch.ones(1)}
    refused(
        "unexpected: 9.weight", lambda: bank.add("b", replace(opened, tensors=more))
    )
    nan = {n: t * torch.nan for n, t in opened.tensors.items()}
    refused("holds NaN", lambda: bank.add("b", replace(opened, tensors=nan)))
    wrong = LoRA(targets=["nowhere"])
    refused(
        "'nowhere' matches none", lambda: bank.add("b", replace(opened, config=wrong))
    )
    refused("made in memory|opened again", lambda: bank.save("lava", "folder"))
    state = {n: t + 1 for n, t in network.state_dict().items()}
    refused("would become another base", lambda: network.load_state_dict(state))


def test_weight__that_is_read_and_not_called_is_refused_in_a_mixed_batch():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            return nn.functional.linear(x, self.linear.weight, self.linear.bias)

    def make():
        torch.manual_seed(0)
        return Reader().double()

    configs = {n: LoRA(rank=2, targets=["linear"], train_fully=[]) for n in "ab"}
    network, bank, alone = filled(configs, make)
    x = torch.randn(2, 4, dtype=torch.float64)
    with bank.select("a"):
        assert torch.equal(network(x), alone["a"](x))
    with bank.select(["a", "b"]), pytest.raises(AdapterError, match="without calling"):
        network(x)


@pytest.mark.parametrize("name", CONFIGS)
def test_close__leaves_the_adapted_network(name):
    x = images()
    network, bank, alone = filled(CONFIGS)
    bank.close(name)
    assert not any(isinstance(module, Routed) for module in network.modules())
    assert bank.names == ()
    assert torch.equal(network(x), alone[name](x))
    assert adapter_names(network) == adapter_names(alone[name])
    with disabled(network):
        assert torch.equal(network(x), alone[None](x))
    merge(network)
    merge(alone[name])
    assert torch.equal(network(x), alone[name](x))


def test_network__moved_or_copied_under_its_bank():
    network, bank, _ = some("lava")
    x = images(2)
    copied = copy.deepcopy(network)
    with bank.select(["lava", None]):
        assert torch.equal(copied(x), network(x))
    network.float()
    bank.float()
    bank.add("dora", trained(CONFIGS["dora"], 3)[1])
    assert {p.dtype for p in member(bank, "dora").parameters()} == {torch.float32}
    with bank.select(["lava", "dora"]):
        mixed = network(x.float())
    expected = trained(CONFIGS["dora"], 3)[0](x[1:])
    # Float32 through six layers.
    torch.testing.assert_close(mixed[1:].double(), expected, rtol=1e-4, atol=1e-5)
    bank.close()
    with pytest.raises(AdapterError, match="the bank is closed"):
        bank.add("again", trained(CONFIGS["dora"], 3)[1])


def test_merge__of_a_bank_with_one():
    x = images()
    network, _, alone = some("lava")
    merged = merge(network)
    torch.testing.assert_close(network(x), alone["lava"](x), rtol=0, atol=1e-10)
    assert not any(True for _ in adapters(network))
    unmerge(network, merged)
    assert torch.equal(network(x), alone["lava"](x))


def test_penalty__is_of_the_adapters_in_the_batch():
    network = base()
    bank = AdapterBank(network)
    for name in ("a", "b", "c"):
        bank.adapt(name, Lava(rank=2, targets=["3"], train_fully=[]))
    assert bank.orthogonality() == {}
    with bank.select(["a", None, "b", "a"]):
        penalties = bank.orthogonality()
    assert sorted(penalties) == ["a", "b"]
    sum(penalties.values()).backward()
    with_gradient = {
        n.split(".")[1] for n, p in bank.named_parameters() if p.grad is not None
    }
    assert with_gradient == {"a", "b"}


def test_remove__while_running_ends_that_batch_as_it_began():
    x = images(2)
    network, bank, alone = some("lava", "lora")
    with bank.select(["lava", "lora"]):
        bank.remove("lava", when_free=True)
        bank.add("lava", trained(CONFIGS["dora"], 9)[1])
        mixed = network(x)
    expected = one_by_one(alone, ["lava", "lora"], x)
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-10)
    with bank.select("lava"):
        assert not torch.allclose(network(x), alone["lava"](x))


def stress(seconds, threads=8):
    """Threads with selections of their own, while adapters come and go."""
    configs = {name: CONFIGS[name] for name in ("lava", "lora", "dora", "fast", "head")}
    network, bank, alone = filled(configs)
    x = images(4)
    names = [*configs, None]
    passing = trained(CONFIGS["tucker"], 77)[1]
    until, problems, batches = time.monotonic() + seconds, [], []

    def serve(seed):
        chooser = random.Random(seed)
        done = 0
        while time.monotonic() < until and not problems:
            chosen = [chooser.choice(names) for _ in x]
            with torch.no_grad(), bank.select(chosen):
                found = network(x)
            with torch.no_grad():
                expected = one_by_one(alone, chosen, x)
            if not torch.allclose(found, expected, rtol=0, atol=1e-10):
                problems.append(chosen)
            done += 1
        batches.append(done)

    def come_and_go():
        turn = 0
        while time.monotonic() < until and not problems:
            bank.add(f"guest {turn}", passing)
            with torch.no_grad(), bank.select(f"guest {turn}"):
                network(x)
            bank.remove(f"guest {turn}", when_free=turn % 2 == 0)
            turn += 1
        batches.append(turn)

    workers = [threading.Thread(target=serve, args=(i,)) for i in range(threads)]
    workers.append(threading.Thread(target=come_and_go))
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(seconds + 60)
    assert not problems
    assert len(batches) == threads + 1  # none died
    assert min(batches) > 0
    assert all(member(bank, name).users == 0 for name in bank.names)
    assert bank.names == tuple(configs)


def test_threads__have_their_own_selections_while_adapters_come_and_go():
    stress(seconds=2)


@pytest.mark.slow
def test_threads__for_a_minute():
    stress(seconds=60)
