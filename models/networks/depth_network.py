"""An encoder under a DPT head, and the step from features to depth."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks import sky
from models.networks.dpt import DPTHead, Levels
from models.networks.encoder import DinoV2Encoder
from models.networks.interface import Encoder, Network, OutputSpec, below
from models.networks.outputs import Disparity, Exponential, Output, Saturating
from models.networks.presets import DESIGNS, Design, NetworkError, NetworkSpec, Unit


def with_flip(network: nn.Module, image: Tensor) -> Tensor:
    """The mean of a network's prediction and its mirrored prediction of the mirror.

    Args:
        network: Images (B, 3, H, W) to depths (B, 1, H, W).
        image: (B, 3, H, W), normalised.
    """
    depth: Tensor = (network(image) + network(image.flip(-1)).flip(-1)) / 2
    return depth


class DPTNetwork(Network):
    """Any encoder under the DPT head of Depth Anything.

    State-dict keys are `pretrained.*` and `depth_head.*`, Depth Anything's own.
    """

    encoder_name = "pretrained"
    fully_trained = (r"^depth_head\.scratch\.output_conv2\.2$",)
    head_targets = (
        r"^projects\.\d$",
        r"^resize_layers\.3$",
        r"^scratch\.layer\d_rn$",
        r"^scratch\.refinenet\d\.(out_conv|resConfUnit\d\.conv\d)$",
        r"^scratch\.output_conv1$",
        r"^scratch\.output_conv2\.0$",
    )
    """Layers of the head that an adapter changes, below `depth_head`."""

    def __init__(
        self,
        spec: OutputSpec,
        encoder: Encoder,
        blocks: tuple[int, ...],
        features: int,
        out_channels: Levels,
        design: Design = DESIGNS["v2"],
    ) -> None:
        """Put a head on an encoder.

        Args:
            spec: What the network is.
            encoder: A module.
            blocks: Four of its blocks, from 0, whose tokens the head reads.
            features: Channels of the head's fused maps.
            out_channels: Channels of its four levels.
            design: Which parts the head has, and what is made of its logits.
        """
        super().__init__()
        self.spec, self.blocks, self.design = spec, blocks, design
        self.output = _output(spec, design)
        self.saturates = self.output.saturates
        self.image_size = design.image_size
        self.patch_px = encoder.patch_px
        self.image_mean, self.image_std = encoder.image_mean, encoder.image_std
        assert isinstance(encoder, nn.Module)
        self.pretrained = encoder
        self.depth_head = DPTHead(encoder.embed_dim, features, out_channels, design)
        self.adapter_targets = (
            *below("pretrained", encoder.adapter_targets),
            *below("depth_head", self.head_targets),
        )
        self.never_trained = (
            *_never_trained(design),
            *below("pretrained", encoder.never_trained),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Predict depth.

        Args:
            image: (B, 3, H, W), normalised, H and W in whole patches.

        Returns:
            (B, 1, H, W) float32 in `unit`. Where the network finds the sky, that is
            put at the far end of the rest, but in training.

        Raises:
            NetworkError: If a side is no multiple of the patch.
        """
        height, width = image.shape[-2:]
        patch_px = self.patch_px
        if height % patch_px or width % patch_px:
            near = [max(round(n / patch_px), 1) * patch_px for n in (height, width)]
            raise NetworkError(
                f"the image is {height}x{width} px; both sides must be multiples of "
                f"{patch_px}, the nearest are {near[0]}x{near[1]}"
            )
        taps: list[Tensor] = self.pretrained.taps(image, self.blocks)
        grid = (height // patch_px, width // patch_px)
        features = self.depth_head(taps, grid, (height, width))
        depth = self.output(self._logits(features))
        if self.training or not self.design.sky:
            return depth
        return sky.filled(depth, self.depth_head.sky(features))

    @property
    def unit(self) -> Unit:
        return self.output.unit

    def pooled(self, image: Tensor) -> Tensor:
        (last,) = self.pretrained.taps(image, self.blocks[-1:])
        rows = image.shape[-2] // self.patch_px
        grid = last.reshape(len(image), rows, -1, last.shape[-1])
        # A middle row, or an only one, belongs to both halves.
        halves = (grid[:, : (rows + 1) // 2], grid[:, rows // 2 :])
        return torch.cat([half.mean((1, 2)) for half in halves], 1)

    @property
    def last_conv(self) -> nn.Conv2d:
        layer = self.depth_head.scratch.output_conv2[2]
        assert isinstance(layer, nn.Conv2d)
        return layer

    def _logits(self, features: Tensor) -> Tensor:
        """Float32 logits: bfloat16 ones would carry 1 % of depth error at logit 3."""
        features = self.depth_head.scratch.output_conv2[:2](features)
        device_type = features.device.type
        if torch.is_autocast_enabled(device_type):
            with torch.autocast(device_type, enabled=False):
                logits: Tensor = self.last_conv(features.float())
        else:
            logits = self.last_conv(features).float()
        return logits

    def new_beside(self, base: Literal["network", "encoder"]) -> tuple[str, ...]:
        # Of a whole network only the last convolution may be (`start_at_depth`).
        return (
            ("depth_head.",)
            if base == "encoder"
            else ("depth_head.scratch.output_conv2.2.",)
        )

    @torch.no_grad()
    def start_at_depth(self, depth: float) -> None:
        """Begin the output anew, near `depth`, for a relative base turned metric.

        Disparity and depth share no scale, not even a sign, so the last layer of such
        a base is worth nothing to the metric network: it is re-initialised, and every
        pixel starts near `depth`. Its weight starts small rather than at zero, which
        would block every gradient below it.

        Where the base predicts the logarithm of depth up to a scale, that scale alone
        is missing: the last bias is shifted, so that the median over pictures of
        noise is `depth`.

        Args:
            depth: Metres, between 0 and the network's max_depth; the data set's
                median depth is a good one.

        Raises:
            NetworkError: If it is not between the two, or the network is relative.
        """
        maximum = self.spec.max_depth
        if maximum is None or not 0 < depth < maximum:
            raise NetworkError(
                f"start depth {depth} m must lie between 0 and the network's "
                f"max_depth, which is {maximum}"
            )
        assert self.last_conv.bias is not None
        logit = self.output.logit(depth)
        if self.output.scales:
            self.last_conv.bias += logit - self._median_depth().log()
            return
        nn.init.normal_(self.last_conv.weight, std=1e-3)
        nn.init.constant_(self.last_conv.bias, logit)

    def _median_depth(self) -> Tensor:
        """Over pictures without meaning, the same at every call."""
        generator = torch.Generator().manual_seed(0)
        coarse = torch.randn(2, 3, 6, 8, generator=generator).to(self.last_conv.weight)
        size = (9 * self.patch_px, 12 * self.patch_px)
        training = self.training
        depth: Tensor = self.eval()(F.interpolate(coarse, size, mode="bicubic"))
        self.train(training)
        return depth.median()


class DepthNetwork(DPTNetwork):
    """Depth Anything v1, v2 or monocular 3; `forward` is exactly what is exported."""

    spec_type = NetworkSpec
    spec: NetworkSpec

    def __init__(self, spec: NetworkSpec) -> None:
        preset = spec.preset
        super().__init__(
            spec,
            DinoV2Encoder(preset, spec.design),
            preset.taps(spec.version),
            preset.features,
            preset.out_channels,
            spec.design,
        )


def _output(spec: OutputSpec, design: Design) -> Output:
    if design.exponential:
        return Exponential("depth" if spec.kind == "relative" else "metres")
    return Disparity() if spec.max_depth is None else Saturating(spec.max_depth)


def _never_trained(design: Design) -> tuple[str, ...]:
    """Of the head: what is never read, and the branch that no depth map can teach."""
    spare = (r"^depth_head\.scratch\.refinenet4\.resConfUnit1(\.|$)",)
    finds_sky = (r"^depth_head\.scratch\.sky_output_conv2(\.|$)",)
    return (spare if design.spare else ()) + (finds_sky if design.sky else ())
