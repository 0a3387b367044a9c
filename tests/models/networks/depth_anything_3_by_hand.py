"""Depth Anything 3's monocular network from its formulas, in float64, by its names."""

import math

import numpy as np
import torch
from torch.nn import functional as F

from tests.models.networks.test_depth_network import resample

DIM, DEPTH, HEADS, FEATURES, SIDE = 128, 6, 4, 32, 14
CHANNELS, TAPS = (24, 48, 96, 96), (1, 2, 4, 5)


def shapes() -> dict[str, tuple[int, ...]]:
    """All tensors of a file for a network of these dimensions."""

    def layer(name, *shape, bias=True):
        return {f"{name}.weight": shape} | ({f"{name}.bias": shape[:1]} if bias else {})

    body, head = "backbone.pretrained", "head"
    found = {
        f"{body}.cls_token": (1, 1, DIM),
        f"{body}.pos_embed": (1, SIDE**2 + 1, DIM),
        **layer(f"{body}.patch_embed.proj", DIM, 3, 14, 14),
        **layer(f"{body}.norm", DIM),
    }
    for i in range(DEPTH):
        block = f"{body}.blocks.{i}"
        found |= {
            **layer(f"{block}.norm1", DIM),
            **layer(f"{block}.attn.qkv", 3 * DIM, DIM),
            **layer(f"{block}.attn.proj", DIM, DIM),
            f"{block}.ls1.gamma": (DIM,),
            **layer(f"{block}.norm2", DIM),
            **layer(f"{block}.mlp.fc1", 4 * DIM, DIM),
            **layer(f"{block}.mlp.fc2", DIM, 4 * DIM),
            f"{block}.ls2.gamma": (DIM,),
        }
    scratch = f"{head}.scratch"
    for i, width in enumerate(CHANNELS):
        found |= layer(f"{head}.projects.{i}", width, DIM, 1, 1)
        found |= layer(f"{scratch}.layer{i + 1}_rn", FEATURES, width, 3, 3, bias=False)
        found |= layer(f"{scratch}.refinenet{i + 1}.out_conv", FEATURES, FEATURES, 1, 1)
        for unit in (1, 2) if i < 3 else (2,):
            for conv in (1, 2):
                name = f"{scratch}.refinenet{i + 1}.resConfUnit{unit}.conv{conv}"
                found |= layer(name, FEATURES, FEATURES, 3, 3)
    found |= layer(f"{head}.resize_layers.0", CHANNELS[0], CHANNELS[0], 4, 4)
    found |= layer(f"{head}.resize_layers.1", CHANNELS[1], CHANNELS[1], 2, 2)
    found |= layer(f"{head}.resize_layers.3", CHANNELS[3], CHANNELS[3], 3, 3)
    found |= layer(f"{scratch}.output_conv1", FEATURES // 2, FEATURES, 3, 3)
    for last in ("output_conv2", "sky_output_conv2"):
        found |= layer(f"{scratch}.{last}.0", 32, FEATURES // 2, 3, 3)
        found |= layer(f"{scratch}.{last}.2", 1, 32, 1, 1)
    return found


def random_state() -> dict[str, torch.Tensor]:
    """Weights with which nothing is hidden by a scale; some of a picture is sky."""
    generator = torch.Generator().manual_seed(7)
    state = {}
    for name, shape in shapes().items():
        value = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            fan_in = math.prod(shape[1:])
            value = value * (0.5 if "pos_embed" in name else fan_in**-0.5)
        elif "gamma" in name or "norm" in name.split(".")[-2]:
            value = 0.5 + 0.1 * value if not name.endswith("bias") else 0.1 * value
        state[name] = value
    state["head.scratch.sky_output_conv2.2.weight"] *= 3
    state["head.scratch.sky_output_conv2.2.bias"].zero_()
    return state


class ByHand:
    """The network of a state dict with official names."""

    def __init__(self, state):
        self.state = {name: value.double() for name, value in state.items()}

    def conv(self, x, name, **options):
        weight = self.state[f"{name}.weight"]
        bias = self.state.get(f"{name}.bias")
        return F.conv2d(x, weight, bias, **options)

    def linear(self, x, name):
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def normed(self, x, name, eps):
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + eps).sqrt()
        return x * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def tokens(self, image) -> list[torch.Tensor]:
        """Patch tokens (B, N, D) of the taps."""
        body = "backbone.pretrained"
        maps = self.conv(image.double(), f"{body}.patch_embed.proj", stride=14)
        rows, cols = maps.shape[-2:]
        table = self.state[f"{body}.pos_embed"]
        grid = table[0, 1:].reshape(SIDE, SIDE, DIM).numpy()
        if (rows, cols) != (SIDE, SIDE):
            grid = resample(resample(grid, rows, 0), cols, 1)
        x = maps.flatten(2).mT + torch.from_numpy(np.ascontiguousarray(grid)).flatten(
            0, 1
        )
        first = self.state[f"{body}.cls_token"] + table[:, :1]
        x = torch.cat([first.expand(len(x), -1, -1), x], 1)
        found = []
        for i in range(DEPTH):
            block = f"{body}.blocks.{i}"
            mixed = self.attention(self.normed(x, f"{block}.norm1", 1e-6), block)
            x = x + self.state[f"{block}.ls1.gamma"] * mixed
            hidden = self.linear(
                self.normed(x, f"{block}.norm2", 1e-6), f"{block}.mlp.fc1"
            )
            hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
            hidden = self.linear(hidden, f"{block}.mlp.fc2")
            x = x + self.state[f"{block}.ls2.gamma"] * hidden
            if i in TAPS:
                found.append(self.normed(x, f"{body}.norm", 1e-5)[:, 1:])
        return found

    def attention(self, x, block):
        batch, count, _ = x.shape
        qkv = self.linear(x, f"{block}.attn.qkv")
        parts = qkv.reshape(batch, count, 3, HEADS, DIM // HEADS).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in parts)
        weights = (q @ k.mT / (DIM // HEADS) ** 0.5).softmax(-1)
        mixed = (weights @ v).transpose(1, 2).reshape(batch, count, DIM)
        return self.linear(mixed, f"{block}.attn.proj")

    def unit(self, x, name):
        hidden = self.conv(x.relu(), f"{name}.conv1", padding=1)
        return x + self.conv(hidden.relu(), f"{name}.conv2", padding=1)

    def features(self, image):
        """(B, FEATURES / 2, H, W): what both branches read."""
        height, width = image.shape[-2:]
        grid = (height // 14, width // 14)
        levels = []
        for i, tokens in enumerate(self.tokens(image)):
            maps = tokens.mT.reshape(len(image), DIM, *grid)
            maps = self.conv(maps, f"head.projects.{i}")
            name = f"head.resize_layers.{i}"
            if i < 2:
                weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
                stride = weight.shape[-1]
                maps = F.conv_transpose2d(maps, weight, bias, stride)
            elif i == 3:
                maps = self.conv(maps, name, stride=2, padding=1)
            name = f"head.scratch.layer{i + 1}_rn"
            levels.append(self.conv(maps, name, padding=1))
        path = None
        for i in (4, 3, 2, 1):
            name = f"head.scratch.refinenet{i}"
            level = levels[i - 1]
            joined = (
                level
                if path is None
                else path + self.unit(level, f"{name}.resConfUnit1")
            )
            path = self.unit(joined, f"{name}.resConfUnit2")
            rows, cols = path.shape[-2:]
            size = levels[i - 2].shape[-2:] if i > 1 else (2 * rows, 2 * cols)
            path = self.conv(larger(path, size), f"{name}.out_conv")
        path = self.conv(path, "head.scratch.output_conv1", padding=1)
        return larger(path, (height, width))

    def branch(self, features, name):
        hidden = self.conv(features, f"head.scratch.{name}.0", padding=1).relu()
        return self.conv(hidden, f"head.scratch.{name}.2")

    def __call__(self, image) -> tuple[torch.Tensor, torch.Tensor]:
        """Depth before anything is done about the sky, and where sky is."""
        features = self.features(image)
        depth = self.branch(features, "output_conv2").exp()
        return depth, self.branch(features, "sky_output_conv2").relu()


def larger(maps, size):
    return F.interpolate(maps, size, mode="bilinear", align_corners=True)
