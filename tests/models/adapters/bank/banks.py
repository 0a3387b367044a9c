"""Adapters of many kinds for one small network, in a bank and each alone."""

import torch
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
from models.adapters.opened import fingerprint
from models.adapters.state import adapter_names


def base(dtype=torch.float64) -> nn.Sequential:
    """Every kind of layer that can be adapted in line, and norms between them."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.Flatten(2),
        nn.Linear(64, 16),
        nn.LayerNorm(16),
        nn.Linear(16, 4),
        nn.Unflatten(1, (2, 4)),
        nn.ConvTranspose2d(2, 6, 3, groups=2),
    )
    with torch.no_grad():
        network[1].running_mean.normal_()
    return network.to(dtype).eval()


CONFIGS = {
    "lava": Lava(rank=2, targets=["0", "3", "5", "7"], train_fully=["4"]),
    "lora": LoRA(rank=3, alpha=5, targets=["3", "5"], train_fully=["1", "4"]),
    "dora": DoRA(rank=2, targets=["0", "3"], train_fully=["5"]),
    "tucker": Tucker(rank=2, targets=["0", "3", "7"], train_fully=["1"]),
    "svdiff": SVDiff(targets=["0", "5", "7"], train_fully=["4"]),
    "fast": FastLoRA(targets=["3", "5", "7"], train_fully=[]),
    "fast 2": FastLoRA(rank=2, targets=["0", "3"], train_fully=[]),
    "head": TrainFully(train_fully=["5", "7"]),
}


def off_start(module, seed=1, scale=0.3):
    """Move everything that is trained to a random place, statistics too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict(keep_vars=True).items():
            if tensor.requires_grad or "running_mean" in name:
                noise = torch.randn(tensor.shape, generator=generator)
                tensor.add_(noise.to(tensor), alpha=scale)


def trained(config, seed=1, make=base):
    """A network of its own with a trained adapter, and the adapter apart from it."""
    network = make()
    sha256 = fingerprint(network)
    adapt(network, config)
    network.eval()
    off_start(network, seed)
    state = network.state_dict()
    tensors = {name: state[name].clone() for name in adapter_names(network)}
    return network, OpenedAdapter(config, tensors, sha256, source="a test")


def filled(configs, make=base):
    """A bank of these configurations, and each adapter's own network; None the base."""
    network = make()
    bank = AdapterBank(network)
    alone = {None: make()}
    for seed, (name, config) in enumerate(configs.items()):
        alone[name], opened = trained(config, seed, make)
        bank.add(name, opened)
    return network, bank, alone


def member(bank, name):
    """The module of one adapter in a bank."""
    return bank.roster.find(name)


def one_by_one(alone, names, x):
    """What each example's own network says of it."""
    found = [alone[name](x[i : i + 1]) for i, name in enumerate(names)]
    return torch.cat(found)
