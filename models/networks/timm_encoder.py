"""Any plain vision transformer of timm as an encoder."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import timm
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.presets import NetworkError

_READ = "patch_embed|cls_token|reg_token|dist_token|pos_embed|norm_pre|norm|blocks|rope"
"""Parts of timm's transformers that maps come from; others pool and classify."""


class TimmEncoder(nn.Module):
    """One of timm's transformers whose blocks all give maps of one size.

    Its own names are timm's, behind `model.`.

    Args:
        name: As timm calls it, with or without a tag (`vit_base_patch16_siglip_224`).
        embed_dim: In place of its own, for a smaller one of the same kind.
        depth: Number of blocks, likewise.
        num_heads: Likewise.

    Raises:
        NetworkError: If there is no such model, or it gives no maps of one size.
    """

    model: Any
    """timm's transformers have no common class."""
    adapter_targets: tuple[str, ...] = (
        r"^model\.blocks\.\d+\.attn\.(qkv|q_proj|k_proj|v_proj|proj)$",
        # `fc1_g` and `fc1_x` are SwiGLU's two halves.
        r"^model\.blocks\.\d+\.mlp\.(fc1|fc1_g|fc1_x|fc2)$",
    )
    never_trained: tuple[str, ...] = (rf"^model\.(?!({_READ})(\.|$))",)

    def __init__(
        self,
        name: str,
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
    ) -> None:
        super().__init__()
        asked = {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads}
        self.model = _transformer(name, {k: v for k, v in asked.items() if v})
        self.patch_px: int = self.model.patch_embed.patch_size[0]
        config = self.model.pretrained_cfg
        self.image_mean: tuple[float, float, float] = tuple(config["mean"])
        self.image_std: tuple[float, float, float] = tuple(config["std"])
        self.embed_dim: int = self.model.embed_dim
        # EVA02 normalises after pooling alone: its blocks' maps come as they are.
        self.normalises = not isinstance(self.model.norm, nn.Identity)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.model.blocks)

    def taps(self, image: Tensor, blocks: tuple[int, ...]) -> list[Tensor]:
        """Patch tokens (B, N, D), row by row, after each of the blocks, normalised.

        Args:
            image: (B, 3, H, W) in whole patches.
            blocks: Numbers of blocks, from 0.
        """
        maps = self.model.forward_intermediates(
            image,
            indices=list(blocks),
            norm=True,
            stop_early=True,
            output_fmt="NCHW",
            intermediates_only=True,
        )
        tokens = [each.flatten(2).mT for each in maps]
        if self.normalises:
            return tokens
        return [F.layer_norm(each, (self.embed_dim,)) for each in tokens]

    def from_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A file's tensors without those of its classifier."""
        names = self.model.pretrained_cfg.get("classifier") or ()
        classifier = (names,) if isinstance(names, str) else tuple(names)
        beginnings = tuple(f"{name}." for name in classifier)
        return {k: v for k, v in state.items() if not k.startswith(beginnings)}


def quarters(depth: int) -> tuple[int, int, int, int]:
    """Four blocks, from 0, at the ends of a transformer's quarters.

    Those that DINOv2's and Depth Anything's networks read: 2, 5, 8, 11 of 12, and 4,
    11, 17, 23 of 24.

    Raises:
        NetworkError: If there are fewer than four.
    """
    if depth < 4:
        raise NetworkError(f"an encoder of {depth} blocks has no four maps to read")
    if depth == 24:
        return (4, 11, 17, 23)
    first, second, third = (max(depth * i // 4 - 1, i - 1) for i in (1, 2, 3))
    return (first, second, third, depth - 1)


def _transformer(name: str, smaller: Mapping[str, int]) -> Any:
    if not timm.is_model(name):
        near = get_close_matches(name.partition(".")[0], timm.list_models(), 3)
        raise NetworkError(
            f"timm {timm.__version__} has no model {name!r}"
            + (f"; near are {', '.join(near)}" if near else "")
        )
    options: dict[str, Any] = {"dynamic_img_size": True, **smaller}
    try:
        model: Any = timm.create_model(name, num_classes=0, **options)
    except (TypeError, RuntimeError, ValueError, AssertionError) as error:
        # What takes no picture of any size is no plain transformer.
        if "dynamic_img_size" in str(error):
            raise _no_uniform_maps(name) from None
        raise NetworkError(
            f"timm cannot build {name} with {dict(smaller)} ({error})"
        ) from None
    reductions = {each["reduction"] for each in getattr(model, "feature_info", ())}
    if len(reductions) != 1 or not hasattr(model, "blocks"):
        raise _no_uniform_maps(name)
    rows, cols = model.patch_embed.patch_size
    if rows != cols:
        raise NetworkError(
            f"{name} has patches of {rows}x{cols} px, which must be square"
        )
    return model


def _no_uniform_maps(name: str) -> NetworkError:
    return NetworkError(
        f"{name} does not give the DPT head maps of one size from pictures of any: "
        "pyramids (ConvNeXt, Swin, ResNet) do not, nor do networks with a fixed input; "
        "choose a plain vision transformer, such as vit_base_patch16_siglip_224"
    )
