"""Names in Meta's files of DINOv3, and timm's for the same tensors.

Source: dinov3 `models/vision_transformer.py`, `layers/{attention,block,ffn_layers}.py`.
"""

import re
from collections.abc import Mapping

from torch import Tensor

MARK = "storage_tokens"
"""What DINOv3 alone calls its registers."""
_UNREAD = re.compile(r"^mask_token$|^rope_embed\.|^local_cls_norm\.|\.bias_mask$")
_NAMES = (
    (r"^storage_tokens$", "reg_token"),
    (r"\.ls([12])\.gamma$", r".gamma_\1"),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)


def from_meta(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Meta's names to timm's; what depth does not read is left out.

    The bias of keys is masked in theirs and absent here. Those of queries and values
    are zero in the published files, and then absent, too: timm has them in its models
    ending in `_qkvb` alone.
    """
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if _UNREAD.search(key):
            continue
        if key.endswith(".attn.qkv.bias"):
            stem = key.removesuffix("qkv.bias")
            query, _, values = value.chunk(3)
            if query.any() or values.any():
                renamed |= {f"{stem}q_bias": query, f"{stem}v_bias": values}
            continue
        name = key
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed
