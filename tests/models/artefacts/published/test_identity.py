import json

import pytest
import torch
import transformers

from models import DepthAnythingModule
from models.artefacts.merged import save_network
from models.artefacts.published.identity import Identity, identify
from models.artefacts.published.transformers_keys import to_transformers
from models.networks import DepthNetwork, NetworkError, NetworkSpec, load_depth_anything


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("depth_anything_v2_vits.pth", Identity("S", "v2", "relative")),
        ("depth_anything_v2_vitl.safetensors", Identity("L", "v2", "relative")),
        ("depth_anything_vitb14.pth", Identity("B", "v1", "relative")),
        (
            "depth_anything_v2_metric_hypersim_vits.pth",
            Identity("S", "v2", "metric", 20.0),
        ),
        (
            "depth_anything_v2_metric_vkitti_vitb.pth",
            Identity("B", "v2", "metric", 80.0),
        ),
        (
            "models--LiheYoung--depth_anything_vits14/snapshots/1/pytorch_model.bin",
            Identity("S", "v1", "relative"),
        ),
        ("DA3MONO-LARGE.safetensors", Identity("L", "v3", "relative", None, "max504")),
        (
            "models--depth-anything--DA3METRIC-LARGE/snapshots/1/model.safetensors",
            Identity("L", "v3", "metric", 200.0, "max504", 300.0),
        ),
        ("DA3-LARGE.safetensors", Identity()),
        ("depth_anything_v2_vits_experiment/v1.pth", Identity()),
        ("mine.pth", Identity()),
    ],
)
def test_identify__official_names(tmp_path, name, expected):
    assert identify(tmp_path / name) == expected


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(("kind", "max_depth"), [("relative", None), ("metric", 20.0)])
def test_identify__folders_of_ours_and_of_transformers(
    tmp_path, version, kind, max_depth
):
    network = DepthNetwork(NetworkSpec("tiny", version, kind, max_depth))
    save_network(network, tmp_path / "ours")
    expected = Identity("tiny", version, kind, max_depth)
    assert identify(tmp_path / "ours") == expected
    preset = network.spec.preset
    config = transformers.DepthAnythingConfig(
        backbone_config=transformers.Dinov2Config(
            hidden_size=preset.embed_dim,
            num_hidden_layers=preset.depth,
            out_indices=[tap + 1 for tap in preset.taps(version)],
        ),
        reassemble_hidden_size=preset.embed_dim,
        depth_estimation_type=kind,
        max_depth=int(max_depth or 1),
    )
    config.save_pretrained(tmp_path / "theirs")
    assert identify(tmp_path / "theirs") == expected


def official(tmp_path, name):
    """A file of random tiny weights under an official name is not looked into."""
    path = tmp_path / name
    torch.save(DepthNetwork(NetworkSpec("S", "v2", "relative")).state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("name", "asked", "message"),
    [
        ("depth_anything_v2_vits.pth", {"version": "v1"}, "version 'v2', not 'v1'"),
        ("depth_anything_vits14.pth", {"version": "v2"}, "version 'v1', not 'v2'"),
        (
            "depth_anything_v2_vits.pth",
            {"kind": "metric", "max_depth": 20},
            "kind 'relative', not 'metric'",
        ),
        (
            "depth_anything_v2_metric_vkitti_vits.pth",
            {},
            "kind 'metric', not 'relative'",
        ),
        ("depth_anything_v2_vitb.pth", {}, "size 'B', not 'S'"),
    ],
)
def test_load__a_wrong_pairing_is_refused(tmp_path, name, asked, message):
    path = official(tmp_path, name)
    with pytest.raises(NetworkError, match=message):
        load_depth_anything(path, **asked)
    path.rename(tmp_path / "renamed.pth")
    load_depth_anything(tmp_path / "renamed.pth", **asked)


def test_module__an_official_metric_base_keeps_its_output(tmp_path):
    path = official(tmp_path, "depth_anything_v2_metric_hypersim_vits.pth")
    module = DepthAnythingModule(20.0, (28, 42), size="S", weights=str(path))
    base = torch.load(path, weights_only=True)
    name = "depth_head.scratch.output_conv2.2.weight"
    assert torch.equal(module.network.state_dict()[name], base[name])


def test_load__a_transformers_folder_knows_its_version(tmp_path):
    network = DepthNetwork(NetworkSpec("S", "v1", "relative"))
    config = transformers.DepthAnythingConfig()  # v1, S
    model = transformers.DepthAnythingForDepthEstimation(config)
    model.load_state_dict(to_transformers(network.state_dict()), strict=False)
    model.save_pretrained(tmp_path)
    load_depth_anything(tmp_path, version="v1")
    with pytest.raises(NetworkError, match="version 'v1', not 'v2'"):
        load_depth_anything(tmp_path, version="v2")


def test_identify__damaged_config_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({})[:-1])
    with pytest.raises(NetworkError, match="is not valid JSON"):
        identify(tmp_path)
