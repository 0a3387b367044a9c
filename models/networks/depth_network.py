"""Depth Anything: encoder, head, and the step from features to depth."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.networks.dpt import DPTHead
from models.networks.encoder import PATCH_PX, DinoV2Encoder
from models.networks.presets import NetworkError, NetworkSpec


def with_flip(network: nn.Module, image: Tensor) -> Tensor:
    """The mean of a network's prediction and its mirrored prediction of the mirror."""
    depth: Tensor = (network(image) + network(image.flip(-1)).flip(-1)) / 2
    return depth


class DepthNetwork(nn.Module):
    """Depth Anything v1/v2 of any size; `forward` is exactly what is exported.

    State-dict keys are the official ones (`pretrained.*`, `depth_head.*`).
    """

    adapter_targets: ClassVar[tuple[str, ...]] = (
        r"^pretrained\.blocks\.\d+\.attn\.(qkv|proj)$",
        r"^pretrained\.blocks\.\d+\.mlp\.(fc1|fc2|w12|w3)$",
        r"^depth_head\.projects\.\d$",
        r"^depth_head\.resize_layers\.3$",
        r"^depth_head\.scratch\.layer\d_rn$",
        r"^depth_head\.scratch\.refinenet\d\.(out_conv|resConfUnit\d\.conv\d)$",
        r"^depth_head\.scratch\.output_conv1$",
        r"^depth_head\.scratch\.output_conv2\.0$",
    )
    """Layers that an adapter changes unless it names its own (regular expressions)."""
    fully_trained: ClassVar[tuple[str, ...]] = (
        r"^depth_head\.scratch\.output_conv2\.2$",
    )
    """Layers trained in full beside the adapter."""
    never_trained: ClassVar[tuple[str, ...]] = (
        r"^depth_head\.scratch\.refinenet4\.resConfUnit1(\.|$)",
        r"^pretrained\.mask_token$",
    )
    """Parameters that `forward` never reads, so that they never get a gradient."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.pretrained = DinoV2Encoder(spec.preset)
        self.depth_head = DPTHead(spec.preset)

    def forward(self, image: Tensor) -> Tensor:
        """Predict depth.

        Args:
            image: (B, 3, H, W), ImageNet-normalised, H and W multiples of 14.

        Returns:
            (B, 1, H, W) float32: metres in (0, max_depth) from a metric network,
            affine disparity >= 0 (larger is nearer) from a relative one.
        """
        height, width = image.shape[-2:]
        if height % PATCH_PX or width % PATCH_PX:
            raise NetworkError(
                f"the image is {height}x{width} px; both sides must be multiples of "
                f"{PATCH_PX}, the nearest are {_nearest(height)}x{_nearest(width)}"
            )
        taps = self.pretrained.taps(image, self.spec.preset.taps(self.spec.version))
        grid = (height // PATCH_PX, width // PATCH_PX)
        features = self.depth_head(taps, grid, (height, width))
        logits = self._last_conv(features)
        if self.spec.max_depth is None:
            return torch.relu(logits)
        return torch.sigmoid(logits) * self.spec.max_depth

    @property
    def last_conv(self) -> nn.Conv2d:
        layer = self.depth_head.scratch.output_conv2[2]
        assert isinstance(layer, nn.Conv2d)
        return layer

    def _last_conv(self, features: Tensor) -> Tensor:
        """Float32 logits: bfloat16 ones would carry 1 % of depth error at logit 3."""
        device_type = features.device.type
        if torch.is_autocast_enabled(device_type):
            with torch.autocast(device_type, enabled=False):
                logits: Tensor = self.last_conv(features.float())
        else:
            logits = self.last_conv(features).float()
        return logits

    @torch.no_grad()
    def start_at_depth(self, depth: float) -> None:
        """Re-initialise the last convolution so that every pixel starts near `depth`.

        For a relative base turned metric: disparity and depth share no scale, not
        even a sign, so its last layer is worth nothing to the metric network. The
        weight starts small rather than at zero, which would block every gradient
        below it.

        Args:
            depth: Metres, between 0 and the network's max_depth; the data set's
                median depth is a good one.
        """
        maximum = self.spec.max_depth
        if maximum is None or not 0 < depth < maximum:
            raise NetworkError(
                f"start depth {depth} m must lie between 0 and the network's "
                f"max_depth, which is {maximum}"
            )
        nn.init.normal_(self.last_conv.weight, std=1e-3)
        assert self.last_conv.bias is not None
        nn.init.constant_(self.last_conv.bias, math.log(depth / (maximum - depth)))


def _nearest(pixels: int) -> int:
    return max(round(pixels / PATCH_PX), 1) * PATCH_PX
