"""Encoders of timm: what they read, what of them is trained, what is refused."""

import re

import pytest
import timm
import torch

from models.artefacts.published.weights import load_weights
from models.networks import NetworkError
from models.networks.timm_encoder import TimmEncoder, quarters
from models.networks.timm_network import DINOv3Network, TimmNetwork, TimmSpec

SMALL = {"embed_dim": 64, "depth": 4, "num_heads": 4}
HALF = (0.5, 0.5, 0.5)
IMAGENET = (0.485, 0.456, 0.406)
CLIP = (0.48145466, 0.4578275, 0.40821073)
NEVER = {
    "vit_small_patch16_dinov3": (16, IMAGENET, set()),
    "vit_small_plus_patch16_dinov3": (16, IMAGENET, set()),
    "vit_base_patch16_siglip_224": (16, HALF, {"attn_pool"}),
    "eva02_tiny_patch14_224": (14, CLIP, {"fc_norm"}),
    "eva02_base_patch14_448": (14, CLIP, {"fc_norm"}),
    "vit_pe_core_tiny_patch16_384": (16, HALF, {"attn_pool"}),
    "vit_pe_spatial_tiny_patch16_512": (16, HALF, set()),
    "deit3_small_patch16_224": (16, IMAGENET, set()),
    "deit_small_distilled_patch16_224": (16, IMAGENET, set()),
}
"""Patch, mean, and the parts of timm's model whose parameters never get a gradient."""


def small(name: str, family=TimmNetwork):
    torch.manual_seed(0)
    return family(TimmSpec(name, 10.0, **SMALL))


@pytest.mark.parametrize("name", NEVER)
def test_parameters__that_get_no_gradient_are_those_that_are_named(name):
    network = small(name)
    patch_px, mean, never = NEVER[name]
    assert (network.patch_px, network.image_mean) == (patch_px, mean)
    network(torch.randn(2, 3, 2 * patch_px, 3 * patch_px)).log().mean().backward()
    without = {n for n, p in network.named_parameters() if p.grad is None}
    named = {
        n
        for n, _ in network.named_parameters()
        if any(re.search(pattern, n) for pattern in network.never_trained)
    }
    assert without == named
    parts = {n.removeprefix("pretrained.model.").split(".")[0] for n in without}
    assert parts == never


@pytest.mark.parametrize("name", NEVER)
def test_adapter_targets__are_all_linears_of_the_blocks(name):
    network = small(name)
    linears = {
        n
        for n, module in network.named_modules()
        if isinstance(module, torch.nn.Linear) and ".blocks." in n
    }
    found = {
        n for n in linears if any(re.search(p, n) for p in network.adapter_targets)
    }
    assert found == linears
    assert len(found) >= 4 * 4


@pytest.mark.parametrize("name", NEVER)
@torch.no_grad()
def test_taps__are_the_patches_of_timms_own_features_row_by_row(name):
    encoder = TimmEncoder(name, **SMALL).eval()
    patch = encoder.patch_px
    image = torch.randn(1, 3, 2 * patch, 3 * patch)
    taps = encoder.taps(image, (0, 1, 2, 3))
    assert [tap.shape for tap in taps] == [(1, 6, 64)] * 4
    model = encoder.model
    expected = model.forward_features(image)[:, model.num_prefix_tokens :]
    if not encoder.normalises:
        expected = torch.nn.functional.layer_norm(expected, (64,))
    torch.testing.assert_close(taps[-1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [
        (12, (2, 5, 8, 11)),
        (24, (4, 11, 17, 23)),
        (32, (7, 15, 23, 31)),
        (40, (9, 19, 29, 39)),
        (4, (0, 1, 2, 3)),
        (5, (0, 1, 2, 4)),
    ],
)
def test_quarters(depth, blocks):
    assert quarters(depth) == blocks
    with pytest.raises(NetworkError, match="of 3 blocks has no four maps"):
        quarters(3)


@pytest.mark.parametrize(
    "name", ["convnext_tiny", "swin_tiny_patch4_window7_224", "resnet18", "mvitv2_tiny"]
)
def test_pyramids__are_refused_by_name(name):
    with pytest.raises(
        NetworkError, match=f"^{name} does not give .* pyramids"
    ) as seen:
        TimmNetwork(TimmSpec(name, 10.0))
    assert "\n" not in str(seen.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_base_patch16_siglop_224", "near are vit_base_patch16_siglip_224"),
        ("vit_base_patch16_siglip_224.nowhere", "tag.*nowhere"),
    ],
)
def test_names__that_timm_does_not_have_are_refused(name, message):
    with pytest.raises(NetworkError, match=message):
        TimmNetwork(TimmSpec(name, 10.0, **SMALL))


def test_sizes__that_do_not_go_together_are_refused():
    with pytest.raises(NetworkError, match="timm cannot build"):
        TimmNetwork(TimmSpec("deit3_small_patch16_224", 10.0, 64, 4, 5))


def test_forward__other_multiples_are_refused():
    network = small("vit_small_patch16_dinov3")
    with pytest.raises(NetworkError, match=r"multiples of 16, the nearest are 32x48"):
        network(torch.randn(1, 3, 28, 42))


def encoder_state(network):
    return {k: v.clone() for k, v in network.encoder.state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_load__timms_file_without_its_classifier(tmp_path, prefix):
    name = "deit3_small_patch16_224"
    theirs = timm.create_model(name, num_classes=7, **SMALL).state_dict()
    assert "head.weight" in theirs
    torch.save({f"{prefix}{k}": v for k, v in theirs.items()}, tmp_path / "w.pth")
    network = small(name)
    load_weights(network, tmp_path / "w.pth", "encoder")
    found = encoder_state(network)
    assert all(torch.equal(v, theirs[k]) for k, v in found.items())
    torch.save({**theirs, "strange": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(NetworkError, match="unexpected strange"):
        load_weights(network, tmp_path / "w.pth", "encoder")


def test_load__metas_names_of_dinov3(tmp_path):
    """Written down from its `vision_transformer.py` and `layers/`."""
    network = small("vit_small_plus_patch16_dinov3", DINOv3Network)
    torch.nn.init.normal_(network.encoder.reg_token)
    wanted = encoder_state(network)
    theirs = {"mask_token": torch.zeros(1, 64), "rope_embed.periods": torch.ones(4)}
    for name, value in wanted.items():
        name = name.replace("reg_token", "storage_tokens")
        name = re.sub(r"gamma_(\d)", r"ls\1.gamma", name)
        for own, meta in (("fc1_g", "w1"), ("fc1_x", "w2"), ("fc2", "w3")):
            name = name.replace(f"mlp.{own}", f"mlp.{meta}")
        theirs[name] = value
        if name.endswith("attn.qkv.weight"):
            stem = name.removesuffix("weight")
            # Keys have none: theirs is masked.
            bias = torch.cat([torch.zeros(64), torch.ones(64), torch.zeros(64)])
            theirs |= {f"{stem}bias": bias, f"{stem}bias_mask": torch.ones(192)}
    torch.save(theirs, tmp_path / "dinov3_vits16.pth")
    other = small("vit_small_plus_patch16_dinov3", DINOv3Network)
    load_weights(other, tmp_path / "dinov3_vits16.pth", "encoder")
    found = encoder_state(other)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(v, wanted[k]) for k, v in found.items())
    theirs["blocks.0.attn.qkv.bias"] += 1
    torch.save(theirs, tmp_path / "dinov3_vits16.pth")
    with pytest.raises(NetworkError, match=r"unexpected blocks\.0\.attn\.q_bias"):
        load_weights(other, tmp_path / "dinov3_vits16.pth", "encoder")
