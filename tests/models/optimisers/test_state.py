"""Flora's state: saved and loaded, in two processes, and what is refused."""

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from datamodules.errors import UserError
from models.errors import CheckpointError, OptionError
from models.optimisers import Flora
from tests.conftest import lacks


def network(dtype=torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(128, 6), nn.LayerNorm(6)
    )
    return net.to(dtype)


def flora(net, **options) -> Flora:
    return Flora(
        net.named_parameters(), **{"rank": 2, "kappa": 4, "lr": 0.01} | options
    )


def train(net, optimizer, steps, part=slice(None)) -> None:
    dtype = next(net.parameters()).dtype
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(4, 3, 4, 4, generator=generator)[part].to(dtype)
        optimizer.zero_grad()
        (net(x) - x.mean((1, 2, 3))[:, None]).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("stop", [4, 6], ids=["between periods", "within a period"])
def test_state__goes_on_to_the_bit(tmp_path, dtype, stop):
    whole = network(dtype)
    train(whole, flora(whole), range(10))
    cut = network(dtype)
    optimizer = flora(cut)
    train(cut, optimizer, range(stop))
    torch.save([cut.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = network(dtype)
    resumed.load_state_dict(weights)
    again = flora(resumed)
    again.load_state_dict(state)
    train(resumed, again, range(stop, 10))
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


OTHERS = {
    "rank": ({"rank": 3}, "state's rank is 2, but Flora is asked for 3"),
    "projection": (
        {"projection": "gaussian"},
        "projection is orthonormal, but Flora is asked for gaussian",
    ),
    "kappa": ({"kappa": 5}, "kappa is 4, but Flora is asked for 5"),
    "seed": ({"seed": 1}, "seed is 0, but Flora is asked for 1"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_state__of_other_options_is_refused(name):
    options, message = OTHERS[name]
    net = network()
    saved = flora(net)
    train(net, saved, range(2))
    other = flora(net, **options)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(CheckpointError, match=message):
        other.load_state_dict(saved.state_dict())
    assert other.state_dict() == before


def test_state__of_other_tensors_or_optimisers_is_refused():
    net = network()
    saved = flora(net)
    train(net, saved, range(2))
    state = saved.state_dict()
    adamw = torch.optim.AdamW(net.named_parameters())
    backwards = Flora(reversed(list(net.named_parameters())), rank=2, kappa=4)
    unnamed = Flora(net.parameters(), rank=2, kappa=4)
    groups = [{"params": [pair]} for pair in net.named_parameters()]
    for optimizer, given, message in (
        (backwards, state, r"the state has 0.weight in the place of 3.bias"),
        (unnamed, state, "the state has 0.weight in the place of a parameter without"),
        (Flora(groups, rank=2, kappa=4), state, "has 1 groups of parameters, not 6"),
        (saved, adamw.state_dict(), "the state's rank is None"),
    ):
        with pytest.raises(CheckpointError, match=message):
            optimizer.load_state_dict(given)


BAD = {
    "rank": ({"rank": 0}, "rank 0 must be a whole number from 1"),
    "fraction": ({"rank": 1.5}, r"rank 1.5 must be a whole number"),
    "kappa": ({"kappa": 0}, "kappa 0 must be"),
    "seed": ({"seed": -1}, "seed -1 must be"),
    "projection": (
        {"projection": "sparse"},
        "projection 'sparse' is not known; use orthonormal or gaussian",
    ),
    "beta": ({"beta": 1.0}, r"beta 1.0 must lie between 0 and 1"),
    "no momentum": ({"beta": 0.0}, r"use torch.optim.Adafactor"),
    "rate": ({"lr": -1.0}, "must not be negative"),
    "not a number": ({"lr": float("nan")}, "lr nan"),
    "clip": ({"clip": 0.0}, "clip 0.0 must be above 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_option__out_of_range_is_one_line(name):
    options, message = BAD[name]
    net = network()
    with pytest.raises(OptionError, match=message) as refusal:
        flora(net, **options)
    assert "\n" not in str(refusal.value)
    optimizer = flora(net)
    more = {"params": [("more", nn.Parameter(torch.zeros(2, 2)))], **options}
    with pytest.raises(OptionError, match=message):
        optimizer.add_param_group(more)
    assert len(optimizer.param_groups) == 1


def test_parameter__complex_or_sparse_is_one_line():
    spectrum = nn.Parameter(torch.zeros(2, 3, dtype=torch.complex64))
    with pytest.raises(OptionError, match=r"spectrum \(2, 3\) is torch.complex64"):
        Flora([("spectrum", spectrum)])
    table = nn.Embedding(5, 4, sparse=True)
    optimizer = Flora(table.named_parameters(), rank=2)
    table(torch.tensor([1, 2])).sum().backward()
    before = table.weight.detach().clone()
    with pytest.raises(OptionError, match=r"weight \(5, 4\) has a sparse one"):
        optimizer.step()
    assert torch.equal(table.weight, before)
    assert not optimizer.state[table.weight]


def test_error__is_a_users():
    assert issubclass(OptionError, UserError)
    assert issubclass(CheckpointError, UserError)


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    net = network()
    spread = DistributedDataParallel(net)
    train(spread, flora(net), range(10), slice(2 * rank, 2 * rank + 2))
    torch.save(net.state_dict(), Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_processes__two_end_equal_and_as_one(tmp_path, monkeypatch):
    # Each has a hash seed of its own: what Python hashes would differ.
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    mp.spawn(worker, (str(tmp_path),), nprocs=2)
    first, second = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    one = network()
    train(one, flora(one), range(10))
    for name, value in one.state_dict().items():
        assert torch.equal(first[name], second[name]), name
        # The mean over half batches is summed in another order.
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-5)


@lacks("shard a network on the CPU")
def test_parameter__that_is_a_shard_is_refused(tmp_path):
    store = f"file://{tmp_path}/store"
    dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        net = network()
        fully_shard(net, mesh=dist.init_device_mesh("cpu", (1,)))
        with pytest.raises(OptionError, match=r"0.weight \(8, 3, 3, 3\) is a shard"):
            flora(net)
    finally:
        dist.destroy_process_group()
