"""Gradients of adapters under DDP and FSDP2: two processes equal one."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from models.adapters import (
    AdapterError,
    Lava,
    adapt,
    merge,
    orthogonality,
)
from tests.conftest import lacks
from tests.models.adapters.networks import INCREMENTS, ranked

METHODS = INCREMENTS


def network(method):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Flatten(2),
        nn.Linear(64, 16),
        nn.Linear(16, 4),
    )
    given = ranked(method, 4, orthogonal="both")
    config = method(targets=["."], train_fully=[], **given)
    adapt(net, config)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith((".up", ".core", ".shift")):
                parameter.normal_(0, 0.1)
    return net, config


def gradients(net, config, x) -> dict[str, torch.Tensor]:
    plain = net.module if isinstance(net, DistributedDataParallel) else net
    loss, penalty = net(x).square().mean(), orthogonality(plain, config)
    (loss if penalty is None else loss + penalty).backward()
    found = {}
    for name, parameter in plain.named_parameters():
        if parameter.requires_grad:
            grad = parameter.grad
            whole = grad.full_tensor() if hasattr(grad, "full_tensor") else grad
            found[name] = whole.detach().clone()
    return found


def batch() -> torch.Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def worker(rank: int, kind: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    for method in METHODS:
        net, config = network(method)
        if kind == "ddp":
            net = DistributedDataParallel(net)
        else:
            mesh = dist.init_device_mesh("cpu", (2,))
            for layer in (net[0], net[2], net[3]):
                fully_shard(layer, mesh=mesh)
            fully_shard(net, mesh=mesh)
        found = gradients(net, config, batch()[2 * rank : 2 * rank + 2])
        if kind == "fsdp2":
            check_sharded_is_refused(net)
        if rank == 0:
            torch.save(found, Path(folder) / f"{method.__name__}.pt")
    # Leaving while the other still talks can abort this process.
    dist.barrier()
    dist.destroy_process_group()


def check_sharded_is_refused(net) -> None:
    """Neither is a layer merged once it is sharded, nor a sharded one adapted."""
    with pytest.raises(AdapterError, match="0 has become a FSDP"):
        merge(net)
    sharded = nn.Sequential(nn.Linear(4, 4))
    fully_shard(sharded[0])
    with pytest.raises(AdapterError, match="0 is sharded by fully_shard"):
        adapt(sharded, Lava(rank=2, targets=["0"], train_fully=[]))


@pytest.mark.parametrize(
    "kind",
    ["ddp", pytest.param("fsdp2", marks=lacks("shard a network on the CPU"))],
)
def test_gradients__two_processes_equal_one(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{Path.cwd()}:{Path(__file__).parent}")
    mp.spawn(worker, (kind, str(tmp_path)), nprocs=2)
    for method in METHODS:
        expected = gradients(*network(method), batch())
        found = torch.load(tmp_path / f"{method.__name__}.pt", weights_only=True)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
