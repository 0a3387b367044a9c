"""Blocks computed again in backward: the same gradients, fewer bytes kept."""

import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.parallel import DistributedDataParallel

from models import DepthAnythingModule, DINOv2Module, DINOv3Module, TimmModule
from models.adapters import (
    DoRA,
    Lava,
    LoRA,
    SVDiff,
    TrainFully,
    Tucker,
    adapt,
    is_never_trained,
)
from models.networks import NetworkError
from tests.conftest import random_tiny
from tests.seams.toy_encoder import ToyNetwork, ToySpec

ADAPTERS = {
    "whole": None,
    "lava": Lava(rank=2),
    "lora with dropout": LoRA(rank=2, dropout=0.3),
    "dora": DoRA(rank=2),
    "tucker": Tucker(rank=2),
    "svdiff": SVDiff(),
    "head only": TrainFully(train_fully=[r"^depth_head$"]),
}


def network(adapter=None, *, checkpointed: bool):
    torch.manual_seed(0)
    net = random_tiny().train()
    for name, parameter in net.named_parameters():
        if is_never_trained(net, name):
            parameter.requires_grad_(False)
    if adapter is not None:
        adapt(net, adapter)
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                if name.endswith((".up", ".core", ".shift")):
                    parameter.normal_(0, 0.02)
    if checkpointed:
        net.checkpoint_gradients()
    return net


def images() -> torch.Tensor:
    return torch.randn(2, 3, 28, 42, generator=torch.Generator().manual_seed(1))


def gradients(net, image, plain=None):
    """Gradients by name, and the bytes that autograd kept besides the weights."""
    plain = net if plain is None else plain
    own = {t.untyped_storage().data_ptr() for t in plain.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(2)
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = net(image).log().square().mean()
    loss.backward()
    found = {n: p.grad for n, p in plain.named_parameters() if p.requires_grad}
    return found, sum(nbytes for place, nbytes in kept.items() if place not in own)


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_gradients__are_the_same_to_the_bit(name, precision):
    found, kept = {}, {}
    for checkpointed in (False, True):
        net = network(ADAPTERS[name], checkpointed=checkpointed)
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            found[checkpointed], kept[checkpointed] = gradients(net, images())
    assert found[True].keys() == found[False].keys()
    for parameter, gradient in found[False].items():
        assert gradient.abs().sum() > 0, parameter
        assert torch.equal(found[True][parameter], gradient), parameter
    if name == "head only":
        # Nothing of a frozen encoder is kept in either case.
        assert kept[True] < 1.05 * kept[False]
    else:
        assert kept[True] < 0.8 * kept[False]


MODULES = {
    DepthAnythingModule: {"size": "tiny"},
    DINOv2Module: {"size": "tiny"},
    DINOv3Module: {"size": "tiny"},
    TimmModule: {
        "model": "vit_base_patch16_siglip_224",
        "embed_dim": 64,
        "depth": 4,
        "num_heads": 4,
    },
}


@pytest.mark.parametrize("kind", MODULES)
def test_module__hands_the_option_on(kind):
    found, kept = {}, {}
    for given in (False, True):
        torch.manual_seed(0)
        module = kind(
            80.0,
            (32, 48),
            weights=None,
            gradient_checkpointing=given,
            **MODULES[kind],
        )
        net = module.network.train()
        image = torch.randn(2, 3, 4 * net.patch_px, 4 * net.patch_px)
        found[given], kept[given] = gradients(net, image)
    assert kept[True] < 0.95 * kept[False]
    for name, gradient in found[False].items():
        assert torch.equal(found[True][name], gradient), name


def test_network__whose_encoder_cannot_is_named():
    expected = re.escape("ToyEncoder has no set_grad_checkpointing")
    with pytest.raises(NetworkError, match=expected):
        ToyNetwork(ToySpec()).checkpoint_gradients()


@pytest.mark.slow
def test_gradients__of_a_compiled_network():
    expected, _ = gradients(network(Lava(rank=2), checkpointed=False), images())
    net = network(Lava(rank=2), checkpointed=True)
    compiled = torch.compile(net, backend="aot_eager")
    found, _ = gradients(compiled, images(), net)
    for name, gradient in expected.items():
        # The compiler takes operations apart, and rounds in other places.
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6)


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    net = network(Lava(rank=2), checkpointed=True)
    found, _ = gradients(DistributedDataParallel(net), images()[rank : rank + 1], net)
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_gradients__of_two_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    mp.spawn(worker, (str(tmp_path),), nprocs=2)
    first, second = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    expected, _ = gradients(network(Lava(rank=2), checkpointed=False), images())
    for name, gradient in expected.items():
        assert torch.equal(first[name], second[name]), name
        # The mean over both halves is summed in another order.
        torch.testing.assert_close(first[name], gradient, rtol=1e-3, atol=1e-6)
