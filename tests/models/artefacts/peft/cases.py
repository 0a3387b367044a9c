"""Our network in `transformers`, adapters to exchange with PEFT, depths to compare."""

import copy
import json

import torch
import transformers

from models.adapters import (
    DoRA,
    Lava,
    LoRA,
    Tucker,
)
from models.artefacts.published.transformers_keys import (
    to_transformers,
)
from models.networks import DepthNetwork

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


QKV = r"\.attn\.qkv$"


METHODS = {
    "lava": Lava(rank=4, alpha=6),
    "lora": LoRA(rank=4, alpha=3),
    "rslora": LoRA(rank=3, alpha=2, rank_stabilised=True, dropout=0.1),
    "lora, own ranks": LoRA(
        rank=4, alpha=6, rank_pattern={QKV: 2, r"\.1\.mlp\.fc1$": 5}, qkv="qv"
    ),
    "dora": DoRA(rank=4, alpha=3),
    "dora, qk": DoRA(rank=2, qkv="qk", train_fully=[r"\.norm1$", r"output_conv2\.2$"]),
    "lora, whole head": LoRA(
        rank=4, targets=[r"^pretrained\.blocks\."], train_fully=["^depth_head$"]
    ),
    "tucker": Tucker(rank=12, alpha=0.5),
}


def in_transformers(network: DepthNetwork, weights=True):
    """The same network in `transformers`."""
    spec, preset = network.spec, network.spec.preset
    config = transformers.DepthAnythingConfig(
        backbone_config=transformers.Dinov2Config(
            hidden_size=preset.embed_dim,
            num_hidden_layers=preset.depth,
            num_attention_heads=preset.num_heads,
            image_size=preset.pretrain_px,
            use_swiglu_ffn=preset.swiglu,
            patch_size=14,
            out_indices=[tap + 1 for tap in preset.taps(spec.version)],
            apply_layernorm=True,
            reshape_hidden_states=False,
        ),
        reassemble_hidden_size=preset.embed_dim,
        neck_hidden_sizes=list(preset.out_channels),
        fusion_hidden_size=preset.features,
        depth_estimation_type=spec.kind,
        max_depth=int(spec.max_depth or 1),
    )
    model = transformers.DepthAnythingForDepthEstimation(config).eval()
    if weights:
        model.load_state_dict(to_transformers(network.state_dict()))
    return model


@torch.no_grad()
def perturb(network, scale=0.1):
    """Move every trained tensor, so that nothing is where it started."""
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            # Whole layers less: a head of noise would amplify every rounding.
            size = scale if ".adapter." in name or "lora_" in name else scale / 10
            parameter.add_(size * torch.randn_like(parameter))


@torch.no_grad()
def depth(model, dtype=torch.float32):
    """(196, 196) m on the grid of pre-training, where nothing is interpolated."""
    x = torch.randn(1, 3, 196, 196, generator=torch.Generator().manual_seed(1))
    if dtype != torch.float32:
        x, model = x.to(dtype), copy.deepcopy(model).to(dtype)
    out = model(x)
    depth = out[0, 0] if isinstance(out, torch.Tensor) else out.predicted_depth[0]
    return depth.float()


def assert_same(ours, theirs, base, atol=5e-5):
    """By default within float32 rounding through the network: 6e-6 m was seen."""
    assert (ours - base).abs().mean() > 1000 * atol  # the adapter does something
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


def edit_config(folder, **changes):
    content = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(content | changes))
