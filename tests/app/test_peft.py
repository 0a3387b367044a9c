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
from torch import nn

from app import peft_folder
from app.export import load_peft, save_peft
from models.adapters import (
    AdapterError,
    DoRA,
    Lava,
    LoRA,
    SVDiff,
    Tucker,
    adapt,
    adapters,
    merge,
)
from models.networks import DepthNetwork, NetworkSpec
from models.networks.presets import PRESETS
from models.networks.transformers_keys import (
    from_transformers,
    to_transformers,
)

# PEFT 0.21 asks transformers 5.23 for an attribute that was renamed there.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

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


@pytest.fixture
def adapted(tiny, request):
    """(network, config, plain base), every trained tensor moved."""
    base = copy.deepcopy(tiny)
    config = METHODS[request.param]
    adapt(tiny, config)
    perturb(tiny)
    return tiny, config, base


every_method = pytest.mark.parametrize("adapted", METHODS, indirect=True)
with_lora = pytest.mark.parametrize("adapted", ["lora"], indirect=True)


def edit_config(folder, **changes):
    content = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(content | changes))


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

    monkeypatch.setattr(peft_folder, "save_file", interrupted)
    with pytest.raises(OSError, match="No space left"):
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
        (drop, r"2 of its.*missing head\.conv1\.lora_A\.weight; missing head\.conv3"),
        (add, r"unexpected head\.extra"),
        (transpose, r"mlp\.fc1\.lora_A\.weight is \(128, 4\) instead of \(4, 128\)"),
        (edited(r=5), r"lora_A\.weight is .* instead of \(5, "),
        (edited(use_dora=True), r"missing .*lora_magnitude_vector"),
        (
            edited(target_modules=["fc1"]),
            r"118 of its.*unexpected backbone.*k_proj\.lora_A",
        ),
        (edited(modules_to_save=None), r"unexpected head\.conv3\.bias"),
        (edited(peft_type="LOHA"), "peft_type is LOHA, not LORA; merge it with PEFT"),
        (edited(init_lora_weights="pissa"), "init_lora_weights 'pissa' goes beyond"),
        (edited(bias="all"), "bias 'all' goes beyond"),
        (edited(layers_to_transform=[1]), r"layers_to_transform \[1\] goes beyond"),
        (edited(from_the_future=True), "from_the_future True goes beyond"),
        (pickle, "no adapter_config.json with adapter_model.safetensors.*any code"),
        (lambda folder: (folder / CONFIG).unlink(), "no adapter_config.json with"),
        (lambda folder: (folder / CONFIG).write_text("{"), "cannot be read"),
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
