"""Weights in whatever training scripts wrap them in, in any combination."""

import copy
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from app.errors import one_line_errors
from models.artefacts.base import fingerprint
from models.artefacts.opening import open_model
from models.artefacts.published.nesting import best_fit, tensors_in
from models.artefacts.published.transformers_keys import to_transformers
from models.artefacts.published.weights import (
    load_weights,
    read_state_dict,
    wanted_by,
)
from models.networks import DepthNetwork, NetworkError, NetworkSpec, load_depth_anything

RELATIVE = {"size": "tiny", "version": "v2", "kind": "relative"}


def random_network(seed: int) -> DepthNetwork:
    torch.manual_seed(seed)
    return DepthNetwork(NetworkSpec(**RELATIVE))


RAW, AVERAGE = random_network(1), random_network(2)


def under(key):
    return lambda state: {key: state}


def before(prefix):
    """Only dictionaries of tensors have names to put something before."""

    def wrap(content):
        if all(isinstance(value, torch.Tensor) for value in content.values()):
            return {f"{prefix}.{name}": value for name, value in content.items()}
        return {prefix: content}

    return wrap


def in_the_middle(word):
    """As wrapping a part of the network does."""

    def wrap(content):
        return {
            name.replace("blocks.0.", f"blocks.0.{word}.")
            if isinstance(value, torch.Tensor)
            else name: value
            for name, value in content.items()
        }

    return wrap


def in_training(content):
    """Beside an optimiser and a loss, as Lightning and others save."""
    moments = {0: {"exp_avg": torch.ones(3), "step": torch.tensor(7.0)}}
    return {
        "state_dict": content,
        "optimizer": {"state": moments, "param_groups": [{"lr": 1e-3}]},
        "epoch": 3,
        "loss": {"weight": torch.ones(2)},
    }


KEYS = ("model", "state_dict", "params", "ema", "params_ema", "teacher", "net", "x.y")
PREFIXES = ("module", "model", "_orig_mod", "network", "model.encoder", "teacher")
WRAPS = {
    **{f"under {key}": under(key) for key in KEYS},
    **{f"{prefix}. before": before(prefix) for prefix in PREFIXES},
    **{
        f"{word} inside": in_the_middle(word)
        for word in ("_orig_mod", "module", "_fsdp_wrapped_module")
    },
    "in training": in_training,
    "in transformers' names": to_transformers,
}
FIRST = ("in transformers' names", *(name for name in WRAPS if "inside" in name))
"""These change names, which only a plain state dict has."""
AROUND = sorted(set(WRAPS) - set(FIRST))


def wrapped(state, first, around):
    content = WRAPS[first](state) if first else state
    for name in around:
        content = WRAPS[name](content)
    return content


NEEDED = {
    "network": wanted_by(RAW, ""),
    "encoder": wanted_by(RAW.pretrained, "pretrained."),
}
STATES = {"network": RAW.state_dict(), "encoder": RAW.pretrained.state_dict()}


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from([None, *FIRST]),
    st.lists(st.sampled_from(AROUND), max_size=4),
    st.sampled_from(["network", "encoder"]),
)
def test_best_fit__any_nesting(first, around, part):
    content = wrapped(RAW.state_dict(), first, around)
    best, whole = best_fit(tensors_in(content), NEEDED[part])
    assert len(whole) == 1
    assert NEEDED[part].problems(best.state) == []
    for name, tensor in STATES[part].items():
        assert torch.equal(best.state[name], tensor)


@pytest.mark.parametrize("first", [None, *FIRST])
def test_load__nested_in_a_file(tmp_path, first):
    around = ("model. before", "under ema", "in training")
    torch.save(wrapped(RAW.state_dict(), first, around), tmp_path / "w.pth")
    loaded = load_depth_anything(tmp_path / "w.pth", **RELATIVE)
    assert fingerprint(loaded) == fingerprint(RAW)
    encoder = random_network(3)
    head = fingerprint(encoder.depth_head)
    load_weights(encoder, tmp_path / "w.pth", "encoder")
    assert fingerprint(encoder.pretrained) == fingerprint(RAW.pretrained)
    assert fingerprint(encoder.depth_head) == head


RAWS, AVERAGES = RAW.state_dict(), AVERAGE.state_dict()
FLAT = {f"model.{k}": v for k, v in RAWS.items()}
BOTH = {
    "timm": {"state_dict": RAWS, "state_dict_ema": AVERAGES},
    "BasicSR": {"params": RAWS, "params_ema": AVERAGES},
    "beside": {"model": {"module": RAWS}, "ema": {"module": AVERAGES, "decay": 0.99}},
    "Lightning": {
        "state_dict": {
            **FLAT,
            **{f"model_ema.{k}": v for k, v in AVERAGES.items()},
            "criterion.weight": torch.ones(1),
        }
    },
    "plain beside": {**RAWS, **{f"ema.{k}": v for k, v in AVERAGES.items()}},
    "DINO": {"student": FLAT, "teacher": before("module.backbone")(AVERAGES)},
}


@pytest.mark.parametrize("form", BOTH)
def test_load__of_two_the_average_is_taken_and_said(tmp_path, form):
    torch.save(BOTH[form], tmp_path / "w.pth")
    with pytest.warns(UserWarning, match="holds the network 2 times.*average of train"):
        loaded = load_depth_anything(tmp_path / "w.pth", **RELATIVE)
    assert fingerprint(loaded) == fingerprint(AVERAGE)


def test_load__an_average_of_a_part_does_not_stand_for_the_whole(tmp_path):
    part = {k: v for k, v in AVERAGES.items() if k.startswith("depth_head")}
    torch.save({"model": RAWS, "ema": part}, tmp_path / "w.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_depth_anything(tmp_path / "w.pth", **RELATIVE)
    assert fingerprint(loaded) == fingerprint(RAW)


def test_load__a_larger_teacher_is_another_network(tmp_path):
    large = DepthNetwork(NetworkSpec("S", "v2", "relative")).state_dict()
    torch.save({"teacher": large, "student": RAWS}, tmp_path / "w.pth")
    loaded = load_depth_anything(tmp_path / "w.pth", **RELATIVE)
    assert fingerprint(loaded) == fingerprint(RAW)


def test_load__what_torch_itself_saves(tmp_path):
    """Compiled, averaged, and saved by DataParallel."""
    compiled = torch.compile(copy.deepcopy(RAW))
    averaged = AveragedModel(compiled, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    parallel = torch.nn.DataParallel(averaged)
    for network in (compiled, averaged, parallel):
        torch.save({"model": network.state_dict()}, tmp_path / "w.pth")
        loaded = load_depth_anything(tmp_path / "w.pth", **RELATIVE)
        assert fingerprint(loaded) == fingerprint(RAW)


def test_load__what_lacks_behind_prefixes_is_named_by_our_names(tmp_path):
    state = {f"model._orig_mod.{k}": v for k, v in RAWS.items()}
    del state["model._orig_mod.pretrained.norm.weight"]
    state["model._orig_mod.depth_head.extra"] = torch.zeros(1)
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    message = r"missing pretrained\.norm\.weight; unexpected depth_head\.extra"
    with pytest.raises(NetworkError, match=message):
        load_depth_anything(tmp_path / "w.pth", **RELATIVE)


def test_read_state_dict__without_a_network_is_the_largest(tmp_path):
    torch.save({"ema": {"a": torch.ones(1)}, "model": RAWS}, tmp_path / "w.pth")
    assert read_state_dict(tmp_path / "w.pth").keys() == RAWS.keys()


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("in_folder", [True, False])
def test_depth_anything_3__of_many_views_is_called_so_in_one_line(
    tmp_path, capsys, prefix, in_folder
):
    names = ("backbone.pretrained.camera_token", "head.scratch.output_conv2_aux.0.bias")
    path = tmp_path / "model.safetensors"
    save_file({f"{prefix}{name}": torch.ones(2) for name in names}, path)
    (tmp_path / "config.json").write_text('{"model_name": "da3-large-1.1"}')
    source = str(tmp_path if in_folder else path)
    with pytest.raises(SystemExit):
        one_line_errors(open_model)(source)
    printed = capsys.readouterr().err
    assert "for any number of views (da3-large-1.1), which is not built here" in printed
    assert printed.count("\n") == 1
    with pytest.raises(NetworkError, match="give DA3MONO-LARGE"):
        load_weights(random_network(0), path)
