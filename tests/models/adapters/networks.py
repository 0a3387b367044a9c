"""Small networks to adapt, and a way off their start."""

import torch
from torch import nn

from models.adapters import FastLoRA, SVDiff, TrainFully, adapters
from models.adapters.methods import METHODS

INCREMENTS = [method for method in METHODS.values() if method is not TrainFully]
"""Every method that changes a weight: properties hold for each."""


def ranked(method, rank=2, **low_rank):
    """Options that a method has: a rank, and what the additive low-rank ones share."""
    if method is SVDiff:
        return {}
    return {"rank": rank} | ({} if method is FastLoRA else low_rank)


def perturb(network, scale=0.3):
    """Give every adapter tensor a random value, so that increments are not zero."""
    with torch.no_grad():
        for _, adapter in adapters(network):
            for parameter in adapter.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=scale)


def stack() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 8))
