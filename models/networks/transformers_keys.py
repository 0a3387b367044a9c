"""Names of the same tensors in Hugging Face `transformers` and in Depth Anything."""

import re

import torch
from torch import Tensor

_RENAMES: tuple[tuple[str, str], ...] = (
    (r"^backbone\.embeddings\.cls_token$", "pretrained.cls_token"),
    (r"^backbone\.embeddings\.mask_token$", "pretrained.mask_token"),
    (r"^backbone\.embeddings\.position_embeddings$", "pretrained.pos_embed"),
    (
        r"^backbone\.embeddings\.patch_embeddings\.projection\.",
        "pretrained.patch_embed.proj.",
    ),
    (r"^backbone\.layernorm\.", "pretrained.norm."),
    (
        r"^backbone\.encoder\.layer\.(\d+)\.attention\.(?:output\.dense|o_proj)\.",
        r"pretrained.blocks.\1.attn.proj.",
    ),
    (
        r"^backbone\.encoder\.layer\.(\d+)\.layer_scale(\d)\.lambda1$",
        r"pretrained.blocks.\1.ls\2.gamma",
    ),
    (
        r"^backbone\.encoder\.layer\.(\d+)\.mlp\.weights_in\.",
        r"pretrained.blocks.\1.mlp.w12.",
    ),
    (
        r"^backbone\.encoder\.layer\.(\d+)\.mlp\.weights_out\.",
        r"pretrained.blocks.\1.mlp.w3.",
    ),
    (r"^backbone\.encoder\.layer\.(\d+)\.", r"pretrained.blocks.\1."),
    (
        r"^neck\.reassemble_stage\.layers\.(\d)\.projection\.",
        r"depth_head.projects.\1.",
    ),
    (
        r"^neck\.reassemble_stage\.layers\.(\d)\.resize\.",
        r"depth_head.resize_layers.\1.",
    ),
    (r"^head\.conv1\.", "depth_head.scratch.output_conv1."),
    (r"^head\.conv2\.", "depth_head.scratch.output_conv2.0."),
    (r"^head\.conv3\.", "depth_head.scratch.output_conv2.2."),
)
_QKV = re.compile(
    r"^backbone\.encoder\.layer\.(\d+)\.attention\."
    r"(?:attention\.)?(query|key|value|q_proj|k_proj|v_proj)\.(weight|bias)$"
)
_FUSION = re.compile(r"^neck\.fusion_stage\.layers\.(\d)\.(.+)$")
_NECK = re.compile(r"^neck\.convs\.(\d)\.")
_ORDER = "qkv"


def from_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename `DepthAnythingForDepthEstimation` tensors; q, k and v become one.

    Both the names on disk (`query`) and those in memory since version 5 (`q_proj`)
    are understood.
    """
    renamed: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        if found := _QKV.match(key):
            block, role, kind = found.groups()
            fused = f"pretrained.blocks.{block}.attn.qkv.{kind}"
            parts.setdefault(fused, {})[role[0]] = value
        else:
            renamed[_official(key)] = value
    for fused, roles in parts.items():
        if len(roles) == len(_ORDER):
            renamed[fused] = torch.cat([roles[role] for role in _ORDER])
    return renamed


def _official(key: str) -> str:
    if found := _FUSION.match(key):
        level, rest = int(found[1]), found[2]
        rest = rest.replace("projection.", "out_conv.")
        rest = re.sub(
            r"^residual_layer(\d)\.convolution(\d)", r"resConfUnit\1.conv\2", rest
        )
        return f"depth_head.scratch.refinenet{4 - level}.{rest}"
    if found := _NECK.match(key):
        return _NECK.sub(f"depth_head.scratch.layer{int(found[1]) + 1}_rn.", key)
    for pattern, replacement in _RENAMES:
        if re.match(pattern, key):
            return re.sub(pattern, replacement, key)
    return key
