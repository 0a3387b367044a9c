"""Names of the same things in Hugging Face `transformers` and in Depth Anything.

A name is that of a tensor or of a module, as it is in memory since `transformers` 5.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

_BLOCK = "backbone.encoder.layer.#"
_PAIRS: tuple[tuple[str, str], ...] = (
    ("backbone.embeddings.cls_token", "pretrained.cls_token"),
    ("backbone.embeddings.mask_token", "pretrained.mask_token"),
    ("backbone.embeddings.position_embeddings", "pretrained.pos_embed"),
    ("backbone.embeddings.patch_embeddings.projection", "pretrained.patch_embed.proj"),
    # No such name exists in transformers: it stands for the three parts.
    (f"{_BLOCK}.attention.qkv", "pretrained.blocks.#.attn.qkv"),
    (f"{_BLOCK}.attention.o_proj", "pretrained.blocks.#.attn.proj"),
    (f"{_BLOCK}.layer_scale#.lambda1", "pretrained.blocks.#.ls#.gamma"),
    (f"{_BLOCK}.mlp.weights_in", "pretrained.blocks.#.mlp.w12"),
    (f"{_BLOCK}.mlp.weights_out", "pretrained.blocks.#.mlp.w3"),
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
"""`#` is a number; whatever follows the name stays. The first match holds."""
_VERSION_4 = {
    ".attention.attention.query": ".attention.q_proj",
    ".attention.attention.key": ".attention.k_proj",
    ".attention.attention.value": ".attention.v_proj",
    ".attention.output.dense": ".attention.o_proj",
}
"""As these modules were called before version 5, and still are in its files."""
_PART = re.compile(r"\.attention\.([qkv])_proj(?=\.|$)")
PARTS = "qkv"
"""The thirds of a fused projection, in the order of its rows."""


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename `DepthAnythingForDepthEstimation` tensors; q, k and v become one."""
    renamed: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        name, part = official_name(key)
        if part:
            parts.setdefault(name, {})[part] = value
        else:
            renamed[name] = value
    for name, thirds in parts.items():
        if len(thirds) == len(PARTS):
            renamed[name] = torch.cat([thirds[part] for part in PARTS])
    return renamed


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `from_transformers`; the parts are views of their whole."""
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        names = transformers_names(key)
        renamed.update(zip(names, value.chunk(len(names)), strict=True))
    return renamed


def official_name(name: str) -> tuple[str, str]:
    """The official name and, of a part of a fused projection, `q`, `k` or `v`.

    Both the names on disk (`query`) and those in memory (`q_proj`) are understood; an
    unknown name stays as it is.
    """
    name = version_5_name(name)
    found = _PART.search(name)
    whole = _PART.sub(".attention.qkv", name)
    return _translated(whole, _TO_OFFICIAL), found[1] if found else ""


def transformers_names(name: str) -> tuple[str, ...]:
    """One name, or the three of a fused projection; the inverse of `official_name`."""
    translated = _translated(name, _TO_TRANSFORMERS)
    if ".attention.qkv" not in translated:
        return (translated,)
    return tuple(translated.replace(".qkv", f".{part}_proj") for part in PARTS)


def version_5_name(name: str) -> str:
    """The name in memory since version 5 of one from before it."""
    for old, new in _VERSION_4.items():
        name = name.replace(old, new)
    return name


def version_4_name(name: str) -> str:
    """The inverse of `version_5_name`."""
    for old, new in _VERSION_4.items():
        name = name.replace(new, old)
    return name


_Rules = list[tuple[re.Pattern[str], str]]


def _rules(pairs: Iterable[tuple[str, str]]) -> _Rules:
    """Regular expressions and replacements, from each name to its counterpart."""
    rules = []
    for given, wanted in pairs:
        pattern = re.escape(given).replace(r"\#", r"(\d+)")
        first, *rest = wanted.split("#")
        numbered = (rf"\g<{i}>{text}" for i, text in enumerate(rest, start=1))
        rules.append((re.compile(rf"^{pattern}(?=\.|$)"), first + "".join(numbered)))
    return rules


def _translated(name: str, rules: _Rules) -> str:
    for pattern, replacement in rules:
        if pattern.match(name):
            return pattern.sub(replacement, name)
    return name


_TO_OFFICIAL = _rules(_PAIRS)
_TO_TRANSFORMERS = _rules((official, theirs) for theirs, official in _PAIRS)
