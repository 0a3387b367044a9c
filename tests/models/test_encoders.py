"""Every family of encoders, trained through `train.py`, predicted with, handed on."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch

from app.prediction.command import main as predict
from app.training.command import main as train
from models import DepthAnythingModule, DINOv3Module, TimmModule
from models.adapters import Lava, is_never_trained
from models.artefacts.checkpoint import load_checkpoint
from models.artefacts.merged import save_network
from models.dinov3 import spec_of
from models.errors import OptionError
from models.networks import DepthNetwork, NetworkError, NetworkSpec
from models.networks.presets import PRESETS
from models.networks.timm_network import (
    DINOv3Network,
    TimmNetwork,
    TimmSpec,
    head_for,
)
from tests.conftest import onnx_of_any_size

BEST = Path("runs/r/version_0/checkpoints/best.ckpt")
LAVA = {"class_path": "models.adapters.Lava", "init_args": {"rank": 2}}
SMALL = {"weights": None, "embed_dim": 64, "depth": 4, "num_heads": 4}
FAMILIES = {
    "DINOv3": ("models.DINOv3Module", {"size": "tiny", "weights": None}),
    "SigLIP": ("models.TimmModule", {"model": "vit_base_patch16_siglip_224", **SMALL}),
    "EVA02": ("models.TimmModule", {"model": "eva02_tiny_patch14_224", **SMALL}),
    "PE": ("models.TimmModule", {"model": "vit_pe_core_tiny_patch16_384", **SMALL}),
    "DeiT3": ("models.TimmModule", {"model": "deit3_small_patch16_224", **SMALL}),
    "Depth Anything 3": (
        "models.DepthAnythingModule",
        {"size": "tiny", "version": "v3", "weights": "BASE"},
    ),
}
slow = pytest.mark.slow


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grey = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    assert cv2.imwrite("photo.png", cv2.GaussianBlur(grey, (9, 9), 0))


def fit(name: str, adapter) -> None:
    """Two steps on frames of 112x112, which are whole patches of 14 and of 16."""
    class_path, options = FAMILIES[name]
    if options["weights"] == "BASE":
        torch.manual_seed(0)
        base = DepthNetwork(NetworkSpec("tiny", "v3", "relative"))
        save_network(base, Path("BASE"))
    content = {
        "seed_everything": 0,
        "model": {
            "class_path": class_path,
            "init_args": {**options, "adapter": adapter},
        },
        "data": {
            "class_path": "datamodules.SyntheticDataModule",
            "init_args": {
                **{"domain": "rooms", "n_train": 4, "n_val": 1, "batch_size": 2},
                "image_size": [112, 112],
            },
        },
        "trainer": {
            **{"max_steps": 2, "accelerator": "cpu", "devices": 1},
            "enable_progress_bar": False,
            "enable_model_summary": False,
        },
    }
    Path("r.yaml").write_text(json.dumps(content))
    train(["fit", "--config", "r.yaml"])


def depth(model, *more) -> np.ndarray:
    fixed = ["--accelerator", "cpu", "--devices", "1", "--workers", "0", "--overwrite"]
    predict(["photo.png", "--model", str(model), "--formats", "npy", *fixed, *more])
    return np.load("predictions/photo.png.depth.npy")


def export(form: str) -> str:
    predict(["--model", str(BEST), "--export", form, "--export-format", form])
    return form


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=slow if name in ("EVA02", "PE", "DeiT3") else ())
        for name in FAMILIES
    ],
)
def test_family__is_trained_predicts_and_is_handed_on(name, capsys):
    # A random frozen base is stored nowhere: only what is trained in full comes back.
    whole = FAMILIES[name][1]["weights"] is None
    fit(name, None if whole else LAVA)
    network, record = load_checkpoint(BEST)
    if whole:
        read = [
            p.numel()
            for n, p in network.named_parameters()
            if not is_never_trained(network, n)
        ]
        summary = json.loads((BEST.parents[1] / "summary.json").read_text())
        assert summary["trainable_params"] == sum(read)
    else:
        sky = "depth_head.scratch.sky_output_conv2.0.weight"
        base = record.load_base().get_parameter(sky)
        assert torch.equal(network.get_parameter(sky), base)
    own = depth(BEST)
    assert own.std() > 0
    assert np.array_equal(depth(export("depth-anything")), own)
    with pytest.raises(SystemExit):
        export("transformers")
    assert "transformers" in capsys.readouterr().err


@slow
@onnx_of_any_size
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_family__is_exported_to_onnx_for_any_size(name):
    torch.manual_seed(0)
    if name == "Depth Anything 3":
        network = DepthNetwork(NetworkSpec("tiny", "v3", "metric", 10.0))
    elif name == "DINOv3":
        network = DINOv3Network(spec_of("tiny", 10.0))
    else:
        options = {k: v for k, v in FAMILIES[name][1].items() if k != "weights"}
        network = TimmNetwork(TimmSpec(max_depth=10.0, **options))
    with torch.no_grad():  # so that nothing is hidden by a scale
        network.last_conv.weight.mul_(20)
        for n, parameter in network.named_parameters():
            if n.endswith("pos_embed"):
                parameter.normal_(0, 0.5)
    save_network(network, Path("whole"))
    predict(["--model", "whole", "--export", "onnx", "--export-format", "onnx"])
    for size in ("112x112", "224x112"):
        own, found = depth("whole", "--size", size), depth("onnx", "--size", size)
        np.testing.assert_allclose(found, own, rtol=1e-3)
        assert own.std() > 0.01 * own.mean()


def test_timm__says_its_patches_and_colours_to_the_data():
    model = FAMILIES["SigLIP"][1]
    module = TimmModule(10.0, (32, 48), **model, adapter=Lava(rank=2))
    read = module.image_input
    assert (read.patch_px, read.mean, read.std) == (16, (0.5,) * 3, (0.5,) * 3)
    trained = {n for n, p in module.network.named_parameters() if p.requires_grad}
    assert any(
        n.startswith("pretrained.model.blocks.0.attn.qkv.adapter") for n in trained
    )
    outside = {n for n in trained if ".adapter." not in n}
    assert {n.split(".")[0] for n in outside} == {"depth_head"}
    assert all(p.requires_grad for p in module.network.depth_head.parameters())


def test_dinov3__sizes_are_timms():
    with pytest.raises(OptionError, match=r"size 'M' is not known; use one of tiny, S"):
        DINOv3Module(10.0, (32, 48), size="M", weights=None)
    names = [spec_of(size, 10.0).model for size in ("S", "S+", "B", "L")]
    assert names == [
        f"vit_{name}_patch16_dinov3"
        for name in ("small", "small_plus", "base", "large")
    ]
    assert all(timm.is_model(name) for name in names)


@pytest.mark.filterwarnings("ignore:start_depth 20 has no effect")
def test_version_3__starts_at_its_depth_from_a_relative_base_alone(tmp_path):
    relative = DepthNetwork(NetworkSpec("tiny", "v3", "relative"))
    metric = DepthNetwork(NetworkSpec("tiny", "v3", "metric", 80.0))
    for name, network in (("relative", relative), ("metric", metric)):
        save_network(network, tmp_path / name)
        given = {"size": "tiny", "version": "v3", "start_depth": 20.0}
        module = DepthAnythingModule(
            80.0, (28, 42), weights=str(tmp_path / name), **given
        )
        weights = network.last_conv.weight, module.network.last_conv.weight
        assert torch.equal(*weights)
        bias = network.last_conv.bias, module.network.last_conv.bias
        assert torch.equal(*bias) == (name == "metric")


def test_base__of_one_camera_is_not_taken_for_any(tmp_path):
    base = DepthNetwork(NetworkSpec("tiny", "v3", "metric", 80.0, 300.0))
    save_network(base, tmp_path / "base")
    given = {"size": "tiny", "version": "v3", "weights": str(tmp_path / "base")}
    for focal_px in ({}, {"camera": "canonical", "canonical_focal_px": 250.0}):
        with pytest.raises(NetworkError, match=r"model\.canonical_focal_px to 300$"):
            DepthAnythingModule(80.0, (28, 42), **given, **focal_px)
    module = DepthAnythingModule(80.0, (28, 42), **given, camera="canonical")
    assert module.network.canonical_focal_px == 300.0


@pytest.mark.parametrize(
    ("kind", "options"),
    [(DINOv3Module, {"size": "tiny"}), (TimmModule, FAMILIES["SigLIP"][1])],
)
def test_new_head__learns_metres_of_a_canonical_camera(kind, options):
    given = {**options, "weights": None, "camera": "canonical"}
    module = kind(10.0, (32, 48), **given)
    assert module.network.canonical_focal_px == 300.0
    assert module.image_input.focal


def test_head__of_a_narrow_encoder_stays_that_of_size_s():
    # ViT-Ti's 192 channels had it before there was a size of 192 channels.
    assert head_for(192) == PRESETS["S"]
    assert head_for(128) == PRESETS["tiny"]
    assert head_for(5000) == PRESETS["G"]
