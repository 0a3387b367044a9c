"""The DINOv2 vision transformer: timm's, with the official code's names and rules."""

import math
from typing import cast

import torch
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.presets import Design, Preset

INTERPOLATE_OFFSET = 0.1


class SwiGLU(nn.Module):
    """The feed-forward of ViT-G under its official names `w12` and `w3`.

    Hidden width as in dinov2 `swiglu_ffn.py: SwiGLUFFNFused`: two thirds of the
    nominal one, rounded up to a multiple of 8. The signature is what timm's `Block`
    calls its `mlp_layer` with.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        act_layer: type[nn.Module] | None = None,
        norm_layer: type[nn.Module] | None = None,
        bias: bool = True,
        drop: float = 0.0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        hidden = (hidden_features * 2 // 3 + 7) // 8 * 8
        self.w12 = nn.Linear(in_features, 2 * hidden, bias, device, dtype)
        self.w3 = nn.Linear(hidden, in_features, bias, device, dtype)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        hidden: Tensor = self.drop(self.w3(F.silu(gate) * value))
        return hidden


class DinoV2Encoder(VisionTransformer):
    """DINOv2 ViT/14 whose state-dict keys and outputs are the official ones.

    timm resamples position embeddings to an explicit size with antialiasing; the
    official code scales by (n + 0.1) / grid without it (dinov2
    `vision_transformer.py: interpolate_pos_encoding`). The two agree on the grid of
    pre-training only, so the official rule is restored here.
    """

    cls_token: nn.Parameter
    pos_embed: nn.Parameter
    embed_dim: int
    patch_px = 14
    # ImageNet's, in RGB.
    image_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    image_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    adapter_targets: tuple[str, ...] = (
        r"^blocks\.\d+\.attn\.(qkv|proj)$",
        r"^blocks\.\d+\.mlp\.(fc1|fc2|w12|w3)$",
    )
    never_trained: tuple[str, ...] = (r"^mask_token$",)

    def __init__(self, preset: Preset, design: Design) -> None:
        super().__init__(
            img_size=preset.pretrain_px,
            patch_size=self.patch_px,
            num_classes=0,
            embed_dim=preset.embed_dim,
            depth=preset.depth,
            num_heads=preset.num_heads,
            init_values=1.0,
            dynamic_img_size=True,
            mlp_layer=SwiGLU if preset.swiglu else Mlp,
        )
        assert isinstance(self.norm, nn.LayerNorm)
        self.norm.eps = design.last_eps
        if design.spare:
            # Kept so that official files load strictly and our exports have every
            # official key.
            self.mask_token = nn.Parameter(
                torch.zeros(1, preset.embed_dim), requires_grad=False
            )

    def _pos_embed(self, x: Tensor) -> Tensor:
        batch, rows, cols, dim = x.shape
        tokens = torch.cat(
            (self.cls_token.expand(batch, -1, -1), x.reshape(batch, -1, dim)), dim=1
        )
        return tokens + self.position_embedding(rows, cols).to(tokens.dtype)

    def position_embedding(self, rows: int, cols: int) -> Tensor:
        """Position embeddings (1, 1 + rows x cols, D) by the official rule."""
        grid = math.isqrt(self.pos_embed.shape[1] - 1)
        if (rows, cols) == (grid, grid):
            return self.pos_embed
        embedding = self.pos_embed.float()
        patches = F.interpolate(
            embedding[:, 1:].reshape(1, grid, grid, -1).permute(0, 3, 1, 2),
            scale_factor=(
                (rows + INTERPOLATE_OFFSET) / grid,
                (cols + INTERPOLATE_OFFSET) / grid,
            ),
            mode="bicubic",
        )
        return torch.cat((embedding[:, :1], patches.flatten(2).mT), dim=1)

    def taps(self, image: Tensor, blocks: tuple[int, ...]) -> list[Tensor]:
        """Patch tokens (B, N, D) after each block in `blocks`, all through `norm`.

        Args:
            image: (B, 3, H, W), ImageNet-normalised, H and W multiples of 14.
            blocks: Block numbers, counted from 0.
        """
        tokens = self.forward_intermediates(
            image,
            indices=list(blocks),
            norm=True,
            stop_early=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        return cast(list[Tensor], tokens)
