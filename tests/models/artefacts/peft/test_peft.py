"""Against the real `peft` on the real `transformers` network, random weights."""

import copy
import dataclasses
import json

import peft
import pytest
import torch
import transformers
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file

from models.adapters import (
    DoRA,
    Lava,
    LoRA,
    adapt,
    adapters,
    merge,
)
from models.artefacts.peft.adapters import load_peft, save_peft
from models.artefacts.published.transformers_keys import (
    from_transformers,
    to_transformers,
)
from models.networks import DepthNetwork, NetworkSpec
from models.networks.presets import PRESETS
from tests.models.artefacts.peft.cases import (
    CONFIG,
    METHODS,
    QKV,
    WEIGHTS,
    assert_same,
    depth,
    edit_config,
    in_transformers,
    perturb,
)

# PEFT 0.21 asks transformers 5.23 for an attribute that was renamed there.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)


every_method = pytest.mark.parametrize("adapted", METHODS, indirect=True)


with_lora = pytest.mark.parametrize("adapted", ["lora"], indirect=True)


@every_method
def test_save_peft__real_peft_gives_our_depth(adapted, tmp_path):
    network, config, base = adapted
    save_peft(network, config, tmp_path, "some/base")
    model = peft.PeftModel.from_pretrained(in_transformers(base), tmp_path).eval()
    ours = depth(network)
    assert_same(ours, depth(model), depth(base))
    assert_same(ours, depth(model.merge_and_unload()), depth(base))
    merge(network)
    assert_same(depth(network), ours, depth(base))


@pytest.mark.parametrize("adapted", ["lava", "dora"], indirect=True)
def test_save_peft__transformers_alone_opens_the_folder(adapted, tmp_path):
    network, config, base = adapted
    in_transformers(base).save_pretrained(tmp_path / "base")
    save_peft(network, config, tmp_path / "adapter", str(tmp_path / "base"))
    model = transformers.AutoModelForDepthEstimation.from_pretrained(
        tmp_path / "adapter"
    )
    assert_same(depth(network), depth(model.eval()), depth(base))


def test_save_peft__a_relative_base_is_opened_as_metric(tmp_path):
    """As `save_peft` says: the base's kind is not PEFT's to carry."""
    base = DepthNetwork(NetworkSpec("tiny", "v2", "relative"))
    in_transformers(base).save_pretrained(tmp_path / "base")
    network = DepthNetwork(NetworkSpec("tiny", "v2", "metric", 10.0)).eval()
    network.load_state_dict(base.state_dict())
    network.start_at_depth(3.0)
    config = Lava(rank=4)
    adapt(network, config)
    perturb(network)
    save_peft(network, config, tmp_path / "adapter", str(tmp_path / "base"))
    model = transformers.AutoModelForDepthEstimation.from_pretrained(
        tmp_path / "adapter", depth_estimation_type="metric", max_depth=10
    )
    assert_same(depth(network), depth(model.eval()), depth(base.eval()))


@every_method
def test_save_peft__only_adapted_layers_get_a_lora(adapted, tmp_path):
    """PEFT matches names loosely: nothing else may match by accident."""
    network, config, base = adapted
    save_peft(network, config, tmp_path, None)
    model = peft.PeftModel.from_pretrained(in_transformers(base), tmp_path)
    found = {
        name.removeprefix("base_model.model.")
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer)
    }
    content = json.loads((tmp_path / CONFIG).read_text())
    assert found == set(content["target_modules"])
    parts = len(getattr(config, "qkv", "qkv")) - 1
    assert len(found) == len(list(adapters(network))) + parts * 6


@every_method
def test_load_peft__gives_back_what_was_saved(adapted, tmp_path):
    network, config, base = adapted
    save_peft(network, config, tmp_path / "a", None)
    plain = copy.deepcopy(base)
    loaded = load_peft(plain, tmp_path / "a")
    assert_same(depth(network), depth(plain), depth(base))

    # The configuration alone rebuilds the same adapters, as a checkpoint does.
    adapt(base, loaded)
    base.load_state_dict(plain.state_dict())
    trained = [
        {n for n, p in m.named_parameters() if p.requires_grad} for m in (base, plain)
    ]
    assert trained[0] == trained[1]

    save_peft(base, loaded, tmp_path / "b", None)
    first, again = (load_file(tmp_path / folder / WEIGHTS) for folder in "ab")
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    if isinstance(config, LoRA):
        assert loaded.rank == config.rank
        assert loaded.qkv == config.qkv
        assert loaded.dropout == config.dropout
        old, new = dict(network.named_parameters()), dict(plain.named_parameters())
        assert old.keys() == new.keys()
        assert all(torch.equal(old[name], new[name]) for name in old)


THEIRS = {
    "qkv apart": {"target_modules": ["q_proj", "k_proj", "v_proj", "fc1"]},
    "q and v": {"target_modules": ["q_proj", "v_proj"], "lora_alpha": 3},
    "own ranks": {
        "target_modules": r".*\.(q_proj|k_proj|fc2|conv1)",
        "rank_pattern": {"q_proj": 2, "layer.1.mlp.fc2": 3},
        "alpha_pattern": {"k_proj": 5, "layer.2.attention.k_proj": 7},
    },
    "rslora": {"target_modules": ["k_proj", "conv2"], "use_rslora": True},
    "dora": {
        "target_modules": ["q_proj", "v_proj", "o_proj", "conv1", "resize"],
        "exclude_modules": ["layers.0.resize", "layers.1.resize", "layers.2.resize"],
        "use_dora": True,
    },
    "whole modules": {
        "target_modules": ["fc1"],
        "modules_to_save": ["norm1", "head", "layer.3.attention.q_proj"],
    },
    # Nothing reads convolution1 of the first fusion layer, but PEFT adapts it.
    "unread": {"target_modules": ["convolution1"], "init_lora_weights": "gaussian"},
}


@pytest.mark.parametrize("options", THEIRS.values(), ids=THEIRS)
def test_load_peft__an_adapter_trained_by_peft(tiny, tmp_path, options):
    base = copy.deepcopy(tiny)
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 6, **options})
    model = peft.get_peft_model(in_transformers(tiny), config).eval()
    perturb(model, 0.5)
    model.save_pretrained(tmp_path)
    loaded = load_peft(tiny, tmp_path)
    # Large random increments amplify rounding; our output is float32 up to 10 m.
    ours, theirs = (depth(network, torch.float64) for network in (tiny, model))
    assert_same(ours, theirs, depth(base), atol=2e-6)
    adapt(base, loaded)
    base.load_state_dict(tiny.state_dict())
    assert torch.equal(depth(base), depth(tiny))


def test_load_peft__a_fused_projection_has_the_sum_of_the_ranks(tiny, tmp_path):
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "k_proj", "v_proj", "fc1"])
    model = peft.get_peft_model(in_transformers(tiny), config)
    perturb(model)
    model.save_pretrained(tmp_path)
    load_peft(tiny, tmp_path)
    up = tiny.pretrained.blocks[0].attn.qkv.adapter.up
    blocks = up.reshape(3, 128, 3, 4).abs().amax((1, 3)) > 0  # (part, ranks)
    assert up.shape == (3 * 128, 3 * 4)
    assert blocks.sum() == 3
    assert tiny.pretrained.blocks[0].mlp.fc1.adapter.up.shape == (512, 4)


@with_lora
def test_load_peft__names_of_transformers_4(adapted, tmp_path):
    network, config, base = adapted
    save_peft(network, config, tmp_path, None)
    tensors = load_file(tmp_path / WEIGHTS)
    for new, old in VERSION_4.items():
        tensors = {name.replace(new, old): t for name, t in tensors.items()}
    save_file(tensors, tmp_path / WEIGHTS)
    old = ["query", "key", "value", "attention.output.dense", "fc1", "fc2"]
    content = json.loads((tmp_path / CONFIG).read_text())
    rest = [name for name in content["target_modules"] if "backbone" not in name]
    edit_config(tmp_path, target_modules=old + rest)
    plain = copy.deepcopy(base)
    load_peft(plain, tmp_path)
    assert_same(depth(network), depth(plain), depth(base))


VERSION_4 = {
    ".attention.q_proj": ".attention.attention.query",
    ".attention.k_proj": ".attention.attention.key",
    ".attention.v_proj": ".attention.attention.value",
    ".attention.o_proj": ".attention.output.dense",
}


def test_save_peft__the_last_convolution_goes_along_untrained(tiny, tmp_path):
    """A relative base turned metric has a new one, whatever is trained."""
    base = copy.deepcopy(tiny)
    config = LoRA(rank=2, targets=[QKV], train_fully=[])
    adapt(tiny, config)
    tiny.start_at_depth(3.0)
    save_peft(tiny, config, tmp_path, None)
    load_peft(base, tmp_path)
    assert torch.equal(depth(base), depth(tiny))
    stored = json.loads((tmp_path / CONFIG).read_text())["modules_to_save"]
    assert stored == ["head.conv3"]


@pytest.fixture
def swiglu(monkeypatch, request):
    """A tiny network with the fused `w12` that only the giant one has."""
    preset = dataclasses.replace(PRESETS["tiny"], swiglu=True)
    monkeypatch.setitem(PRESETS, "tiny", preset)
    return request.getfixturevalue("tiny")


def test_peft__swiglu_is_split_and_fused(swiglu, tmp_path):
    base, again = copy.deepcopy(swiglu), copy.deepcopy(swiglu)
    config = DoRA(rank=4)
    adapt(swiglu, config)
    perturb(swiglu)
    save_peft(swiglu, config, tmp_path / "a", None)
    model = peft.PeftModel.from_pretrained(in_transformers(base), tmp_path / "a")
    assert_same(depth(swiglu), depth(model.eval()), depth(base))
    load_peft(again, tmp_path / "a")
    assert torch.equal(depth(again), depth(swiglu))

    options = {"r": 4, "target_modules": ["gate_proj", "up_proj", "down_proj"]}
    model = peft.get_peft_model(in_transformers(base), peft.LoraConfig(**options))
    perturb(model.eval(), 0.5)
    model.save_pretrained(tmp_path / "b")
    apart = copy.deepcopy(base)
    load_peft(apart, tmp_path / "b")
    assert apart.pretrained.blocks[0].mlp.w12.adapter.up.shape == (2 * 344, 2 * 4)
    ours, theirs = (depth(network, torch.float64) for network in (apart, model))
    assert_same(ours, theirs, depth(base), atol=2e-6)


def shapes(state):
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize("size", ["tiny", "G"])
def test_names__are_those_of_transformers_in_memory_and_on_disk(size):
    with torch.device("meta"):
        network = DepthNetwork(NetworkSpec(size, "v2", "relative"))
        model = in_transformers(network, weights=False)
    official = shapes(network.state_dict())
    ours = to_transformers(network.state_dict())
    assert shapes(ours) == shapes(model.state_dict())
    assert shapes(from_transformers(ours)) == official
    old = to_transformers(network.state_dict(), old=True)
    assert shapes(from_transformers(old)) == official
    disk = transformers.core_model_loading.revert_weight_conversion(
        model, model.state_dict()
    )
    assert shapes(old) == shapes(disk)
