"""Names of the same things in Hugging Face `transformers` and in Depth Anything.

A name is that of a tensor or of the layer that holds it. Since version 5 `transformers`
splits fused layers in memory, but its files keep the names of version 4.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

PARTS = {"qkv": ("q", "k", "v"), "w12": ("gate", "up")}
"""Layers that are fused here and not in `transformers`, by the last word of their
names, and their parts in the order of the rows."""
_BLOCK = "backbone.encoder.layer.#"
_PAIRS: tuple[tuple[str, str], ...] = (
    ("backbone.embeddings.cls_token", "pretrained.cls_token"),
    ("backbone.embeddings.mask_token", "pretrained.mask_token"),
    ("backbone.embeddings.position_embeddings", "pretrained.pos_embed"),
    ("backbone.embeddings.patch_embeddings.projection", "pretrained.patch_embed.proj"),
    (f"{_BLOCK}.attention.*_proj", "pretrained.blocks.#.attn.qkv"),
    (f"{_BLOCK}.attention.o_proj", "pretrained.blocks.#.attn.proj"),
    (f"{_BLOCK}.layer_scale#.lambda1", "pretrained.blocks.#.ls#.gamma"),
    (f"{_BLOCK}.mlp.*_proj", "pretrained.blocks.#.mlp.w12"),
    (f"{_BLOCK}.mlp.weights_in", "pretrained.blocks.#.mlp.w12"),
    (f"{_BLOCK}.mlp.down_proj", "pretrained.blocks.#.mlp.w3"),
    (_BLOCK, "pretrained.blocks.#"),
    ("backbone.layernorm", "pretrained.norm"),
    ("neck.reassemble_stage.layers.#.projection", "depth_head.projects.#"),
    ("neck.reassemble_stage.layers.#.resize", "depth_head.resize_layers.#"),
    *(
        pair
        for level in (1, 2, 3, 4)
        for pair in (
            (f"neck.convs.{level - 1}", f"depth_head.scratch.layer{level}_rn"),
            (
                f"neck.fusion_stage.layers.{4 - level}.projection",
                f"depth_head.scratch.refinenet{level}.out_conv",
            ),
            (
                f"neck.fusion_stage.layers.{4 - level}.residual_layer#.convolution#",
                f"depth_head.scratch.refinenet{level}.resConfUnit#.conv#",
            ),
        )
    ),
    ("head.conv1", "depth_head.scratch.output_conv1"),
    ("head.conv2", "depth_head.scratch.output_conv2.0"),
    ("head.conv3", "depth_head.scratch.output_conv2.2"),
)
"""`#` is a number, `*` a part of a fused layer. The first match holds, and whatever
follows the name stays."""
_VERSION_4 = {
    ".attention.q_proj": ".attention.attention.query",
    ".attention.k_proj": ".attention.attention.key",
    ".attention.v_proj": ".attention.attention.value",
    ".attention.o_proj": ".attention.output.dense",
    ".mlp.down_proj": ".mlp.weights_out",
}


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename `DepthAnythingForDepthEstimation` tensors, and fuse what is fused here.

    The names of either version are understood; unknown ones stay as they are.
    """
    renamed: dict[str, Tensor] = {}
    fused: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        name, part = official_name(key)
        if part:
            fused.setdefault(name, {})[part] = value
        else:
            renamed[name] = value
    for name, values in fused.items():
        parts = parts_of(name.rpartition(".")[0])
        if len(values) == len(parts):
            renamed[name] = torch.cat([values[part] for part in parts])
    return renamed


def to_transformers(
    state: Mapping[str, Tensor], *, old: bool = False
) -> dict[str, Tensor]:
    """The inverse of `from_transformers`; parts are views of the fused tensor.

    Args:
        state: With official names.
        old: Give version 4's names.
    """
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        names = transformers_names(key, old=old)
        renamed.update(zip(names, value.chunk(len(names)), strict=True))
    return renamed


def official_name(name: str) -> tuple[str, str]:
    """The official name and, of a part of a fused layer, which of `PARTS` it is."""
    for new, old in _VERSION_4.items():
        name = name.replace(old, new)
    for pattern, replacement in _TO_OFFICIAL:
        if found := pattern.match(name):
            part = found.groupdict().get("part", "")
            return found.expand(replacement) + name[found.end() :], part
    return name, ""


def transformers_names(name: str, *, old: bool = False) -> tuple[str, ...]:
    """The name in `transformers`, or those of a fused layer's parts in order.

    Args:
        name: Official.
        old: Give version 4's names.
    """
    for pattern, replacement in _TO_TRANSFORMERS:
        if found := pattern.match(name):
            layer, theirs = found[0], found.expand(replacement) + name[found.end() :]
            break
    else:
        return (name,)
    if old:
        theirs = theirs.replace(".mlp.*_proj", ".mlp.weights_in")
    parts = parts_of(layer) if "*" in theirs else ("",)
    names = [theirs.replace("*", part) for part in parts]
    if old:
        for new, before in _VERSION_4.items():
            names = [name.replace(new, before) for name in names]
    return tuple(names)


def parts_of(layer: str) -> tuple[str, ...]:
    """The parts that a layer with this official name has in `transformers`."""
    return PARTS.get(layer.rpartition(".")[2], ())


def are_old(names: Iterable[str]) -> bool:
    """Whether any of the names is one that only version 4 uses."""
    words = (*_VERSION_4.values(), ".mlp.weights_in")
    return any(word in name for name in names for word in words)


_Rules = list[tuple[re.Pattern[str], str]]


def _rules(pairs: Iterable[tuple[str, str]]) -> _Rules:
    """Regular expressions and replacements, from each name to its counterpart."""
    rules = []
    for given, wanted in pairs:
        pattern = re.escape(given).replace(r"\#", r"(\d+)")
        pattern = pattern.replace(r"\*", f"(?P<part>{'|'.join(parts_of(wanted))})")
        first, *rest = wanted.split("#")
        numbered = (rf"\g<{i}>{text}" for i, text in enumerate(rest, start=1))
        rules.append((re.compile(rf"{pattern}(?=\.|$)"), first + "".join(numbered)))
    return rules


_TO_OFFICIAL = _rules(_PAIRS)
_TO_TRANSFORMERS = _rules((official, theirs) for theirs, official in _PAIRS)
