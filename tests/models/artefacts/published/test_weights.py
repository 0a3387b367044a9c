import pytest
import torch
from safetensors.torch import save_file

from models.artefacts.base import fingerprint
from models.artefacts.merged import save_network
from models.artefacts.published.weights import load_weights
from models.networks import DepthNetwork, NetworkError, NetworkSpec, load_depth_anything

RELATIVE = {"size": "tiny", "version": "v2", "kind": "relative"}


def relative() -> DepthNetwork:
    return DepthNetwork(NetworkSpec(**RELATIVE))


def module_prefix(state):
    return {f"module.{key}": value for key, value in state.items()}


FORMS = {
    "plain": lambda state: state,
    "model wrapper": lambda state: {"model": state, "epoch": 3},
    "state_dict wrapper": lambda state: {"state_dict": state},
    "saved by DataParallel": lambda state: {"model": module_prefix(state)},
    "model. prefix": lambda state: {f"model.{k}": v for k, v in state.items()},
    "without mask_token": lambda state: {
        k: v for k, v in state.items() if "mask_token" not in k
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_load__every_official_form(tmp_path, form):
    network = relative()
    torch.save(FORMS[form](network.state_dict()), tmp_path / "weights.pth")
    loaded = load_depth_anything(tmp_path / "weights.pth", **RELATIVE)
    assert fingerprint(loaded) == fingerprint(network)


def test_load__safetensors_file(tmp_path):
    network = relative()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    loaded = load_depth_anything(tmp_path / "w.safetensors", **RELATIVE)
    assert fingerprint(loaded) == fingerprint(network)


def test_save__merged_folder_knows_what_it_is(tmp_path, tiny):
    save_network(tiny, tmp_path / "m")
    given = {"size": "tiny", "version": "v2"}
    loaded = load_depth_anything(tmp_path / "m", **given, kind="metric", max_depth=10.0)
    assert fingerprint(loaded) == fingerprint(tiny)
    with pytest.raises(NetworkError, match="network of kind 'metric', not 'relative'"):
        load_depth_anything(tmp_path / "m", **RELATIVE)
    with pytest.raises(NetworkError, match="network of version 'v2', not 'v1'"):
        load_depth_anything(
            tmp_path / "m", size="tiny", version="v1", kind="metric", max_depth=10.0
        )
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def drop(state):
    del state["pretrained.norm.weight"], state["depth_head.projects.0.bias"]


def add(state):
    state["depth_head.extra"] = torch.zeros(1)


def reshape(state):
    state["pretrained.norm.weight"] = torch.zeros(7)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop, r"missing depth_head\.projects\.0\.bias, pretrained\.norm\.weight"),
        (add, r"unexpected depth_head\.extra"),
        (reshape, r"shape pretrained\.norm\.weight is \(7,\)"),
    ],
)
def test_load__every_wrong_key_is_named(tmp_path, damage, message):
    state = relative().state_dict()
    damage(state)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(NetworkError, match=message):
        load_depth_anything(tmp_path / "w.pth", **RELATIVE)


class Payload:
    pass


def test_load__pickled_objects_are_refused(tmp_path):
    torch.save({"model": Payload()}, tmp_path / "w.pth")
    with pytest.raises(NetworkError, match="holds more than tensors"):
        load_depth_anything(tmp_path / "w.pth", **RELATIVE)


def test_load__truncated_file_is_named(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(relative().state_dict(), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(NetworkError, match=r"w\.safetensors cannot be read"):
        load_depth_anything(path, **RELATIVE)


@pytest.mark.parametrize("source", ["nowhere.pth", "./a/b", "one-word"])
def test_load__missing_source_lists_the_choices(source):
    with pytest.raises(NetworkError, match="no such file or folder"):
        load_depth_anything(source, **RELATIVE)


def test_load__offline_names_file_and_licence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(NetworkError, match=r"depth_anything_v2_vits\.pth.*apache-2\.0"):
        load_depth_anything("depth-anything-v2-small", size="S", version="v2")


@pytest.mark.parametrize("prefix", ["", "pretrained."])
def test_load_weights__fills_the_encoder_only(tmp_path, prefix):
    source, network = relative(), relative()
    state = {f"{prefix}{k}": v for k, v in source.pretrained.state_dict().items()}
    torch.save(state, tmp_path / "dinov2.pth")
    head = fingerprint(network.depth_head)
    load_weights(network, tmp_path / "dinov2.pth", "encoder")
    assert fingerprint(network.pretrained) == fingerprint(source.pretrained)
    assert fingerprint(network.depth_head) == head


def test_fingerprint__changes_with_any_value():
    network = relative()
    before = fingerprint(network)
    with torch.no_grad():
        network.last_conv.bias += 1e-6
    assert fingerprint(network) != before


def test_load__numbers_that_are_none_are_named(tmp_path):
    state = relative().state_dict()
    state["pretrained.norm.weight"][3] = torch.nan
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(NetworkError, match=r"NaN .* in pretrained\.norm\.weight"):
        load_depth_anything(tmp_path / "w.safetensors", **RELATIVE)
