"""The cases of `adapter_step`: frozen networks, layers to adapt, inputs."""

import math
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from models.adapters import is_never_trained
from models.networks import DepthNetwork, NetworkSpec
from models.networks.encoder import DinoV2Encoder
from models.networks.presets import PRESETS

Size = Literal["tiny", "S", "B", "L"]


What = Literal["layers", "encoder", "network", "all"]


CONVS = (  # of the head of L, S, B, S, L: in, out, stride, side of the input
    (256, 256, 1, 37),
    (64, 64, 1, 148),
    (128, 128, 1, 148),
    (64, 32, 1, 296),
    (1024, 1024, 2, 37),
)


@dataclass(frozen=True)
class Options:
    """The command line."""

    device: Literal["cpu", "cuda"]
    dtype: Literal["fp32", "bf16"]
    compile: bool
    threads: int | None
    rounds: int
    rank: int
    batch: int
    size: tuple[int, int]
    what: What
    model: list[Size]
    only: list[str] | None
    cases: str
    json: Path | None

    def autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.dtype == "bf16")


@dataclass(frozen=True)
class Case:
    """A frozen network, the layers to adapt, its input and what backward must reach."""

    name: str
    network: nn.Module
    layers: list[str]
    x: Tensor
    bottom: Tensor
    whole: bool


class Encoder(nn.Module):
    """The ViT of a depth network, down to the four levels that its head reads."""

    def __init__(self, network: DepthNetwork) -> None:
        super().__init__()
        self.pretrained = network.pretrained
        self.taps = network.spec.preset.taps(network.spec.version)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.pretrained.taps(image, self.taps))


def make_cases(options: Options) -> Iterator[Case]:
    """The cases of `--what`, one at a time: each holds its own tensors."""
    parts = ["layers", "encoder", "network"]
    for part in parts if options.what == "all" else [options.what]:
        if part == "layers":
            yield from layer_cases(options)
            continue
        for size in options.model:
            name = f"{part} {size} {options.batch}x{'x'.join(map(str, options.size))}"
            if re.search(options.cases, name):
                yield network_case(options, name, size, encoder_only=part == "encoder")


def layer_cases(options: Options) -> Iterator[Case]:
    """Linear layers of the chosen encoders, and convolutions of the heads."""
    batch = options.batch
    tokens = math.prod(side // DinoV2Encoder.patch_px for side in options.size)
    for size in options.model:
        dim = PRESETS[size].embed_dim
        kinds = {"qkv": (1, 3), "proj": (1, 1), "fc1": (1, 4), "fc2": (4, 1)}
        for kind, (i, o) in kinds.items():
            linear = nn.Linear(i * dim, o * dim)
            name = f"{size} {kind} {i * dim}->{o * dim} @{batch}x{tokens}"
            x = torch.randn(batch, tokens, i * dim)
            yield from _layer_case(options, name, linear, x)
    for i, o, stride, side in CONVS:
        conv = nn.Conv2d(i, o, 3, stride, padding=1)
        name = f"conv {i}->{o}{' s2' if stride == 2 else ''} @{batch}x{side}x{side}"
        x = torch.randn(batch, i, side, side)
        yield from _layer_case(options, name, conv, x)


def _layer_case(
    options: Options, name: str, layer: nn.Module, x: Tensor
) -> Iterator[Case]:
    if re.search(options.cases, name):
        network = nn.Sequential(layer).to(options.device).requires_grad_(False)
        x = x.to(options.device).requires_grad_()
        yield Case(name, network, ["0"], x, bottom=x, whole=False)


def network_case(
    options: Options, name: str, size: Size, *, encoder_only: bool
) -> Case:
    """Depth Anything v2 with random weights, or its encoder."""
    depth = DepthNetwork(NetworkSpec(size, "v2", "metric", 10.0)).to(options.device)
    depth.requires_grad_(False)
    network = Encoder(depth) if encoder_only else depth
    targets = re.compile("|".join(depth.adapter_targets))
    layers = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and targets.search(name)
        and not is_never_trained(depth, name)
    ]
    x = torch.randn(options.batch, 3, *options.size, device=options.device)
    bottom = depth.pretrained.get_parameter("cls_token")
    return Case(name, network, layers, x, bottom, whole=True)
