"""The DPT head of Depth Anything, with its official parameter names.

Source of the rules: Depth Anything V2 `dpt.py: DPTHead` and `util/blocks.py`
(Ranftl et al., Vision Transformers for Dense Prediction, 2021, section 3), and Depth
Anything 3 `model/dpt.py: DPT` for the branch that finds the sky.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.presets import Design

LAST_HIDDEN = 32
Levels = tuple[int, int, int, int]


class ResidualConvUnit(nn.Module):
    """Pre-activated residual unit: x + conv(relu(conv(relu(x))))."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.conv2(F.relu(self.conv1(F.relu(x))))
        return x + hidden


class FeatureFusionBlock(nn.Module):
    """Join the coarser path with one level, refine, upsample, project.

    Args:
        features: Channels.
        joins: Whether it has the layers that a level goes through.
    """

    def __init__(self, features: int, joins: bool = True) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(features, features, 1)
        if joins:
            self.resConfUnit1 = ResidualConvUnit(features)
        self.resConfUnit2 = ResidualConvUnit(features)

    def forward(
        self, path: Tensor, level: Tensor | None, size: tuple[int, int]
    ) -> Tensor:
        """Fuse `path` and `level` (B, C, h, w) and resize to `size` (rows, cols)."""
        if level is not None:
            path = path + self.resConfUnit1(level)
        path = self.resConfUnit2(path)
        # The official order: interpolate first, then the 1x1 convolution.
        path = F.interpolate(path, size, mode="bilinear", align_corners=True)
        fused: Tensor = self.out_conv(path)
        return fused


class Scratch(nn.Module):
    """The part of the head that upstream calls `scratch`: a name, not a layer."""

    def __init__(self, features: int, out_channels: Levels, design: Design) -> None:
        super().__init__()
        for i, channels in enumerate(out_channels, start=1):
            layer = nn.Conv2d(channels, features, 3, padding=1, bias=False)
            self.add_module(f"layer{i}_rn", layer)
        self.refinenet1 = FeatureFusionBlock(features)
        self.refinenet2 = FeatureFusionBlock(features)
        self.refinenet3 = FeatureFusionBlock(features)
        # The deepest level has none below to join.
        self.refinenet4 = FeatureFusionBlock(features, joins=design.spare)
        self.output_conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.output_conv2 = _last_layers(features // 2)
        if design.sky:
            self.sky_output_conv2 = _last_layers(features // 2)


def _last_layers(features: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(features, LAST_HIDDEN, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(LAST_HIDDEN, 1, 1),
    )


class DPTHead(nn.Module):
    """Four levels of patch tokens in, features at full resolution out.

    Args:
        embed_dim: Numbers per token.
        features: Channels of the fused maps.
        out_channels: Of the four levels, shallow to deep.
        design: Which parts it has.
    """

    def __init__(
        self, embed_dim: int, features: int, out_channels: Levels, design: Design
    ) -> None:
        super().__init__()
        c1, c2, _, c4 = out_channels
        self.projects = nn.ModuleList(
            nn.Conv2d(embed_dim, channels, 1) for channels in out_channels
        )
        self.resize_layers = nn.ModuleList(
            (
                nn.ConvTranspose2d(c1, c1, 4, stride=4),
                nn.ConvTranspose2d(c2, c2, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(c4, c4, 3, stride=2, padding=1),
            )
        )
        self.scratch = Scratch(features, out_channels, design)

    def forward(
        self, taps: list[Tensor], grid: tuple[int, int], size: tuple[int, int]
    ) -> Tensor:
        """Decode four levels of tokens.

        Args:
            taps: Four tensors (B, rows x cols, D), shallow to deep.
            grid: Patches (rows, cols).
            size: Output (H, W) in pixels.

        Returns:
            (B, features / 2, H, W): what `scratch.output_conv2` reads. The network
            applies that, because it wants float32 at its end.
        """
        levels = []
        for i, tokens in enumerate(taps):
            maps = tokens.mT.reshape(*tokens.mT.shape[:2], *grid)
            maps = self.resize_layers[i](self.projects[i](maps))
            levels.append(self.scratch.get_submodule(f"layer{i + 1}_rn")(maps))
        sizes = [(maps.shape[2], maps.shape[3]) for maps in levels]
        doubled = (2 * sizes[0][0], 2 * sizes[0][1])

        scratch = self.scratch
        path = scratch.refinenet4(levels[3], None, sizes[2])
        path = scratch.refinenet3(path, levels[2], sizes[1])
        path = scratch.refinenet2(path, levels[1], sizes[0])
        path = scratch.refinenet1(path, levels[0], doubled)

        features = scratch.output_conv1(path)
        return F.interpolate(features, size, mode="bilinear", align_corners=True)

    def sky(self, features: Tensor) -> Tensor:
        """How much each pixel is sky, (B, 1, H, W), of what `forward` returned."""
        return F.relu(self.scratch.sky_output_conv2(features))
