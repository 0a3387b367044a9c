"""The benchmark of optimisers: what it counts, what it runs next, what it says."""

import json

import pytest
import torch
from torch import nn

from benchmarks.comparison.cell import Settings
from benchmarks.optimisers import Plan
from benchmarks.optimising.contestants import CONTESTANTS, CompressedAccumulation
from benchmarks.optimising.costs import measure_costs
from benchmarks.optimising.counting import Alive, Pass, Step, pass_bytes, step_bytes
from benchmarks.optimising.memory import (
    BATCHES,
    GIB,
    RESERVE_GIB,
    SIZES,
    Counted,
    count,
    place,
)
from benchmarks.optimising.report import costs, losses, memory
from benchmarks.optimising.training import Run
from models.adapters import is_never_trained
from models.networks import DepthNetwork, NetworkSpec


def test_alive__counts_storages_and_not_views():
    alive = Alive()
    with alive:
        first = torch.zeros(1000)
        second = first + 1
        del first
        view = second[:10]
        third = torch.zeros(500)
    assert (alive.now, alive.most) == (6000, 8000)
    del second
    assert alive.now == 6000
    del view, third
    assert alive.now == 0


def test_passes__are_counted_alike_with_and_without_memory():
    given = {"batch": 1, "checkpointed": True, "bf16": True}
    found = pass_bytes("tiny", image_size=(28, 42), **given)
    assert found == pass_bytes("tiny", image_size=(28, 42), **given, fake=False)


@pytest.mark.slow
def test_memory__of_other_batches_follows_from_the_counted_ones():
    found = Counted((56, 84), True, steps={"S none": Step(0, 0)})

    def counted_at(batch):
        return pass_bytes("tiny", batch, (56, 84), checkpointed=False, bf16=True)

    for batch in BATCHES:
        found.passes[place("S", batch, False)] = counted_at(batch)
    for batch in (*BATCHES, 5, 24):
        estimate = found.most("S", "none", batch, checkpointed=False)
        # What is kept grows exactly by the frame, the rest of a moment nearly so.
        assert estimate == pytest.approx(counted_at(batch).most, rel=0.02), batch


def test_steps__have_the_state_of_the_formula():
    network = DepthNetwork(NetworkSpec("tiny", max_depth=1.0))
    trained = [
        parameter.numel()
        for name, parameter in network.named_parameters()
        if not is_never_trained(network, name)
    ]
    adamw, sgd, flora = (
        step_bytes("tiny", name, fake=False) for name in ("adamw", "sgd", "flora8")
    )
    # AdamW's count of steps is a number of its own for each tensor.
    assert adamw.state == 8 * sum(trained) + 4 * len(trained)
    assert sgd.state == 4 * sum(trained)
    assert flora.state < 0.07 * adamw.state


@pytest.mark.slow
def test_steps__are_counted_alike_with_and_without_memory():
    for name in ("adamw", "flora8", "flora32_gaussian_kappa20"):
        assert step_bytes("tiny", name) == step_bytes("tiny", name, fake=False)


@pytest.mark.slow
def test_count__goes_on_from_its_file(tmp_path):
    file = tmp_path / "memory.json"
    first = count(["flora8"], file, sizes=["tiny"], image_size=(28, 42))
    content = json.loads(file.read_text())
    content["steps"]["tiny flora8"]["state"] = 7
    file.write_text(json.dumps(content))
    second = count(["flora8"], file, sizes=["tiny"], image_size=(28, 42))
    assert second.steps["tiny flora8"].state == 7
    assert second.passes == first.passes


def counted() -> Counted:
    """Weights of 1 GiB, 2 GiB a frame, half with checkpointing."""
    found = Counted((28, 42), True)
    for size in SIZES:
        for batch in BATCHES:
            for checkpointed in (False, True):
                most = GIB + batch * (GIB if checkpointed else 2 * GIB)
                found.passes[place(size, batch, checkpointed)] = Pass(GIB, 0, most, GIB)
        found.steps[f"{size} adamw"] = Step(2 * GIB, 0)
        found.steps[f"{size} flora32"] = Step(0, 9 * GIB)
    return found


def test_memory__says_what_a_card_has_room_for():
    found = counted()
    assert found.batch("L", "adamw", 8 + RESERVE_GIB, checkpointed=False) == 2
    assert found.batch("L", "adamw", 8 + RESERVE_GIB, checkpointed=True) == 5
    # Its own step is the worst moment here.
    assert found.most("L", "flora32", 1, checkpointed=True) == 11 * GIB
    assert found.batch("L", "flora32", 8 + RESERVE_GIB, checkpointed=False) == 0
    text = "\n".join(memory(["adamw", "flora32"], found))
    assert "| AdamW | S | 2 / 4 | 4 / 8 | 10 / 20 |" in text
    assert "- **8 GB**: S: AdamW with checkpointing (batch 4)" in text


def test_costs__of_a_step_and_its_memory():
    small = Settings(image_size=(28, 42), batch_size=1)
    found = measure_costs(["adamw", "flora8"], small, 1)
    assert found["adamw"]["times_adamw"] == 1
    for values in found.values():
        assert 0 < values["own_ms"] < values["step_ms"]
        assert values["most_mib"] > values["state_mib"]
    assert found["flora8"]["state_mib"] < 0.07 * found["adamw"]["state_mib"]
    assert "| Flora 8 |" in costs(found, "so")


def result(run: Run, delta1: float) -> dict[str, object]:
    return {
        "run": run.__dict__,
        "losses": [1.0] * 8,
        "validation": [{"delta1": delta1}],
        "test": {"delta1": delta1, "abs_rel": 0.1},
        "state_bytes": 2**20,
    }


def test_plan__climbs_rates_and_then_scores_a_seed_of_all_at_a_time():
    plan, results = Plan(["adamw", "sgd"], 2, 1), {}
    best = {"adamw": 3e-3, "sgd": 3e-2}
    order = []
    while wanted := plan.missing(results):
        run = wanted[0]
        order.append(run)
        distance = abs(torch.log10(torch.tensor(run.lr / best[run.optimizer])))
        results[run] = result(run, 0.5 - 0.1 * float(distance))
    scored = [run for run in order if not run.tuning]
    assert order[-4:] == scored
    assert [(r.optimizer, r.seed) for r in scored] == [
        ("adamw", 0),
        ("sgd", 0),
        ("adamw", 1),
        ("sgd", 1),
    ]
    assert {run.lr for run in scored if run.optimizer == "sgd"} == {3e-2}
    text = "\n".join(losses(plan.names, results))
    assert "| AdamW | 1.00 | 0.003 | 2 | 0.500 ± 0.000 |" in text


def test_accumulated__equals_compressing_every_gradient_by_itself():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(9, 6))
    parts = [torch.randn(9, 6) for _ in range(3)]
    optimizer = CompressedAccumulation([("w", weight)], rank=2)

    def compressed(gradient):
        weight.grad = gradient.clone()
        optimizer.compress("w", weight, 2)
        return weight.grad

    apart = sum(compressed(part) for part in parts)
    torch.testing.assert_close(compressed(sum(parts)), apart)
    assert torch.linalg.matrix_rank(apart) == 2


def test_contestants__are_made_of_the_groups_of_training():
    names = [name for name, one in CONTESTANTS.items() if one.needs is None]
    assert {"adamw", "sgd", "adafactor", "flora8", "flora32", "flora128"} <= set(names)
    for name in names:
        layer = nn.Linear(40, 33)
        groups = [{"params": list(layer.named_parameters()), "lr": 0.1, "name": "all"}]
        optimizer = CONTESTANTS[name].make(groups)
        layer(torch.ones(1, 40)).sum().backward()
        before = layer.weight.detach().clone()
        optimizer.step()
        assert not torch.equal(layer.weight, before)
