"""What PEFT cannot express, and PEFT folders that do not fit, are refused by name."""

import copy

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from datamodules.errors import DataError
from models.adapters import (
    AdapterError,
    FastLoRA,
    Lava,
    LoRA,
    SVDiff,
    adapt,
    adapters,
)
from models.artefacts import files
from models.artefacts.peft.adapters import load_peft, save_peft
from models.networks import DepthNetwork, NetworkSpec
from tests.models.artefacts.peft.cases import (
    CONFIG,
    METHODS,
    QKV,
    WEIGHTS,
    edit_config,
    in_transformers,
)

# PEFT 0.21 asks transformers 5.23 for an attribute that was renamed there.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)


every_method = pytest.mark.parametrize("adapted", METHODS, indirect=True)


with_lora = pytest.mark.parametrize("adapted", ["lora"], indirect=True)


def put(network, layer):
    """Replace a layer that the head has by one that Depth Anything has not."""
    network.depth_head.resize_layers[2] = layer
    return ["^depth_head.resize_layers.2$"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda n: (SVDiff, [QKV]),
            r"blocks\.0\.attn\.qkv has an increment of SVDiff",
        ),
        (
            lambda n: (FastLoRA, [QKV]),
            "has an increment of FastLoRA, which is not low-rank as PEFT's is",
        ),
        (
            lambda n: (LoRA, [r"resize_layers\.0$"]),
            r"depth_head\.resize_layers\.0 is ConvTranspose2d",
        ),
        (
            lambda n: (Lava, put(n, nn.Conv2d(96, 96, 3, groups=8, padding=1))),
            r"depth_head\.resize_layers\.2 is a grouped convolution",
        ),
        (
            lambda n: (Lava, put(n, nn.Conv2d(96, 96, 3, dilation=2, padding=2))),
            "has a dilation or padding_mode",
        ),
        (
            lambda n: (LoRA, put(n, nn.Embedding(9, 9))),
            "is Embedding",
        ),
    ],
)
def test_save_peft__what_peft_cannot_express_is_refused(
    tiny, tmp_path, change, message
):
    method, targets = change(tiny)
    config = method(targets=targets)
    adapt(tiny, config)
    with pytest.raises(AdapterError, match=f"{message}.*export the merged network"):
        save_peft(tiny, config, tmp_path / "a", None)
    assert not (tmp_path / "a").exists()


def test_save_peft__a_layer_adapted_and_stored_is_refused(tiny, tmp_path):
    config = LoRA(rank=1, targets=[r"output_conv2\.2$"], train_fully=[])
    adapt(tiny, config)
    with pytest.raises(AdapterError, match=r"head\.conv3 is adapted and has to be"):
        save_peft(tiny, config, tmp_path / "a", None)
    assert not (tmp_path / "a").exists()


def test_save_peft__a_bare_parameter_is_refused(tiny, tmp_path):
    config = LoRA(rank=1, parameters=[r"^pretrained\.pos_embed$"], train_fully=[])
    adapt(tiny, config)
    with pytest.raises(AdapterError, match="is a bare parameter"):
        save_peft(tiny, config, tmp_path / "a", None)


def test_save_peft__a_network_without_adapters_is_refused(tiny, tmp_path):
    with pytest.raises(AdapterError, match="no adapters; export the merged network"):
        save_peft(tiny, LoRA(), tmp_path / "a", None)


@with_lora
def test_save_peft__a_failure_leaves_the_old_folder(adapted, tmp_path, monkeypatch):
    network, config, _ = adapted
    save_peft(network, config, tmp_path, "first")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(before) == [CONFIG, WEIGHTS]

    def interrupted(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(files, "save_file", interrupted)
    with pytest.raises(DataError, match="No space left"):
        save_peft(network, config, tmp_path, "second")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def drop(folder):
    tensors = load_file(folder / WEIGHTS)
    del tensors["base_model.model.head.conv1.lora_A.weight"]
    del tensors["base_model.model.head.conv3.bias"]
    save_file(tensors, folder / WEIGHTS)


def add(folder):
    tensors = load_file(folder / WEIGHTS)
    tensors["base_model.model.head.extra"] = torch.zeros(1)
    save_file(tensors, folder / WEIGHTS)


def transpose(folder):
    tensors = load_file(folder / WEIGHTS)
    name = "base_model.model.backbone.encoder.layer.0.mlp.fc1.lora_A.weight"
    tensors[name] = tensors[name].T.contiguous()
    save_file(tensors, folder / WEIGHTS)


def pickle(folder):
    torch.save(load_file(folder / WEIGHTS), folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()


def cut_off(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:1000])


def edited(**changes):
    return lambda folder: edit_config(folder, **changes)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop, r"missing head\.conv1\.lora_A\.weight, head\.conv3"),
        (add, r"unexpected head\.extra"),
        (transpose, r"mlp\.fc1\.lora_A\.weight is \(128, 4\) instead of \(4, 128\)"),
        (edited(r=5), r"lora_A\.weight is .* instead of \(5, "),
        (edited(use_dora=True), r"missing .*lora_magnitude_vector"),
        (
            edited(target_modules=["fc1"]),
            r"unexpected backbone.*k_proj\.lora_A.* and 110 more",
        ),
        (edited(modules_to_save=None), r"unexpected head\.conv3\.bias"),
        (edited(peft_type="LOHA"), "peft_type is LOHA, not LORA; merge it with PEFT"),
        (edited(init_lora_weights="pissa"), "init_lora_weights 'pissa' goes beyond"),
        (edited(bias="all"), "bias 'all' goes beyond"),
        (edited(layers_to_transform=[1]), r"layers_to_transform \[1\] goes beyond"),
        (edited(from_the_future=True), "from_the_future True goes beyond"),
        (pickle, "no adapter_config.json with adapter_model.safetensors.*any code"),
        (lambda folder: (folder / CONFIG).unlink(), "no adapter_config.json with"),
        (lambda folder: (folder / CONFIG).write_text("{"), "is not valid JSON"),
        (cut_off, "cannot be read"),
    ],
)
@with_lora
def test_load_peft__what_does_not_fit_is_named(adapted, tmp_path, damage, message):
    network, config, base = adapted
    save_peft(network, config, tmp_path, None)
    damage(tmp_path)
    before = copy.deepcopy(base.state_dict())
    with pytest.raises(AdapterError, match=message) as refusal:
        load_peft(base, tmp_path)
    assert str(refusal.value).startswith(f"{tmp_path}: ")
    assert "\n" not in str(refusal.value)
    after = base.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(p.requires_grad for n, p in base.named_parameters() if "mask" not in n)


@with_lora
def test_load_peft__of_another_network_is_refused(adapted, tmp_path):
    """The tensors of a relative and a metric, a v1 and a v2 network look alike."""
    network, config, _ = adapted
    save_peft(network, config, tmp_path, None)
    other = DepthNetwork(NetworkSpec("tiny", "v1", "metric", 10.0))
    with pytest.raises(AdapterError, match="a network of version 'v2', not 'v1'"):
        load_peft(other, tmp_path)
    with pytest.raises(AdapterError, match="has adapters already"):
        load_peft(network, tmp_path)


def test_load_peft__a_rank_beyond_the_fused_layer_is_refused(tiny, tmp_path):
    config = peft.LoraConfig(r=50, target_modules=["q_proj", "k_proj", "v_proj"])
    model = peft.get_peft_model(in_transformers(tiny), config)
    model.save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match=r"rank 150 is larger than 128.*merge it"):
        load_peft(tiny, tmp_path)
    assert not list(adapters(tiny))
