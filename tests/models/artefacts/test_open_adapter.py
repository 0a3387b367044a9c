"""Adapters from every form that holds one, into one bank, and back to their bytes."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.adapters import AdapterBank, AdapterError, DoRA, FastLoRA, Lava, LoRA, adapt
from models.artefacts import open_adapter
from models.artefacts.adapter_folder import save_adapter
from models.artefacts.base import Base
from models.artefacts.depth_record import DepthRecord
from models.artefacts.files import KEY
from models.artefacts.form import Asked
from models.artefacts.opening import open_model
from models.artefacts.peft.adapters import save_peft
from models.artefacts.published.identity import identify
from models.errors import CheckpointError
from models.networks import DepthNetwork, NetworkSpec
from tests.models.artefacts.damage import DAMAGE, change_description


def record_of(weights, config, max_depth=10.0) -> DepthRecord:
    spec, base = NetworkSpec("tiny", "v2", "metric", max_depth), Base(str(weights))
    network = DepthNetwork(spec)
    base.fill(network)
    return DepthRecord(
        network=spec,
        image_size=(28, 42),
        base=base,
        base_sha256=base.fingerprint(network),
        adapter=config,
    )


def trained(record, seed):
    torch.manual_seed(seed)
    network = record.adapted().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return network


@pytest.fixture
def kept(tmp_path, tiny_weights):
    """A folder, a checkpoint and a PEFT folder of different methods, and networks."""
    configs = {"folder": Lava(rank=2), "checkpoint": DoRA(rank=3), "peft": LoRA(rank=2)}
    paths, networks, records = {}, {}, {}
    for seed, (form, config) in enumerate(configs.items()):
        record = records[form] = record_of(tiny_weights, config)
        network = networks[form] = trained(record, seed)
        path = paths[form] = tmp_path / form
        if form == "folder":
            save_adapter(network, record, path)
        elif form == "peft":
            save_peft(network, config, path, None, record)
        else:
            state = network.state_dict()
            names = record.saved_names(network)
            content = {f"network.{name}": state[name] for name in names}
            paths[form] = path = path.with_suffix(".ckpt")
            torch.save({KEY: record.to_dict(), "state_dict": content}, path)
    return paths, networks, records


def test_bank__of_every_form_predicts_each_examples_own(kept):
    paths, networks, records = kept
    base = records["folder"].load_base().eval()
    bank = AdapterBank(base)
    for name, path in paths.items():
        bank.add(name, open_adapter(path))
    names = ["peft", None, "folder", "checkpoint", "folder"]
    image = torch.randn(5, 3, 28, 42)
    networks[None] = records["folder"].load_base().eval()
    with torch.no_grad():
        with bank.select(names):
            mixed = base(image)
        expected = torch.cat(
            [networks[name](image[i : i + 1]) for i, name in enumerate(names)]
        )
    # Float32, through a whole network, and PEFT's fused projections add up otherwise.
    torch.testing.assert_close(mixed, expected, rtol=1e-4, atol=1e-4)


def test_save__gives_the_very_bytes_again(kept, tmp_path):
    paths, networks, records = kept
    bank = AdapterBank(records["folder"].load_base())
    bank.add("a", open_adapter(str(paths["folder"])))
    bank.add("b", open_adapter(str(paths["checkpoint"])))
    bank.save("a", tmp_path / "again")
    for file in paths["folder"].iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()
    bank.save("b", tmp_path / "b")
    opened, state = open_adapter(tmp_path / "b"), networks["checkpoint"].state_dict()
    assert opened.config == records["checkpoint"].adapter
    for name, tensor in opened.tensors.items():
        assert np.array_equal(tensor, state[name])


def test_close__exports_one_of_many(kept, tmp_path):
    paths, _, records = kept
    network = records["folder"].load_base()
    bank = AdapterBank(network)
    for name, path in paths.items():
        bank.add(name, open_adapter(path))
    bank.close("checkpoint")
    save_adapter(network, records["checkpoint"], tmp_path / "out")
    opened = open_adapter(tmp_path / "out")
    before = open_adapter(paths["checkpoint"])
    assert opened.tensors.keys() == before.tensors.keys()
    for name, tensor in opened.tensors.items():
        assert torch.equal(tensor, before.tensors[name])


def test_encoder_base__brings_its_whole_head(tmp_path, tiny_weights):
    """Begun from an encoder: every tensor of the head is the adapter's own."""
    networks, bank = {}, None
    for seed, config in enumerate((Lava(rank=2), FastLoRA())):
        record = record_of(tiny_weights, config)
        encoder = Base(str(tiny_weights), "encoder")
        network = trained(record, seed)
        sha256 = encoder.fingerprint(record.load_base())
        with torch.no_grad():
            for tensor in network.depth_head.parameters():
                tensor.add_(torch.randn_like(tensor), alpha=0.02)
        own = DepthRecord(
            network=record.network,
            image_size=record.image_size,
            base=encoder,
            base_sha256=sha256,
            adapter=config,
        )
        path = tmp_path / str(seed)
        save_adapter(network, own, path)
        networks[str(seed)] = network
        if bank is None:
            shared = own.load_base().eval()
            bank = AdapterBank(shared)
        bank.add(str(seed), open_adapter(path))
    image = torch.randn(3, 3, 28, 42)
    with torch.no_grad(), bank.select(["1", "0", "1"]):
        mixed = shared(image)
    with torch.no_grad():
        expected = torch.cat(
            [networks[n](image[i : i + 1]) for i, n in enumerate("101")]
        )
    torch.testing.assert_close(mixed, expected, rtol=1e-4, atol=1e-4)


def test_open_adapter__refusals(tmp_path, tiny, tiny_weights):
    with pytest.raises(CheckpointError, match="is no adapter; give a checkpoint"):
        open_adapter(tiny_weights)
    whole = record_of(tiny_weights, None)
    save_adapter(whole.adapted(), whole, tmp_path / "whole")
    with pytest.raises(CheckpointError, match="is a whole network, not an adapter"):
        open_adapter(tmp_path / "whole")
    record = record_of(tiny_weights, Lava(rank=2))
    save_adapter(trained(record, 0), record, tmp_path / "one")
    with torch.no_grad():
        tiny.last_conv.bias.add_(1e-6)
    with pytest.raises(AdapterError, match="give an adapter of the same base"):
        AdapterBank(tiny).add("one", open_adapter(tmp_path / "one"))
    adapted = record.load_base()
    adapt(adapted, record.adapter)
    with pytest.raises(AdapterError, match="has adapters already"):
        AdapterBank(adapted)


def test_peft__on_a_base_that_is_named_keeps_its_record(kept, tmp_path, tiny_weights):
    paths, networks, _ = kept
    moved = tmp_path / "moved"
    shutil.copytree(tiny_weights, moved)
    found = open_model(str(paths["peft"]), Asked(base=str(moved)))
    assert found.record is not None
    assert (found.image_size, found.record.base.weights) == ((28, 42), str(moved))
    x = torch.randn(1, 3, 28, 42)
    with torch.no_grad():
        torch.testing.assert_close(found.network.eval()(x), networks["peft"](x))
    for form in ("peft", "folder", "checkpoint"):
        with pytest.raises(CheckpointError, match="trained on a base with SHA-256"):
            open_model(str(paths[form]), Asked(base="tiny-rooms"))


@pytest.mark.parametrize(
    "asked", [Asked(base="tiny-rooms"), Asked(network="tiny,v2,metric,10")]
)
def test_asked__of_what_says_it_itself_is_refused(kept, tiny_weights, asked):
    whole = str(tiny_weights) if asked.base else str(kept[0]["folder"])
    with pytest.raises(CheckpointError, match="has no effect"):
        open_model(whole, asked)


def test_peft__of_another_method_opens_as_what_it_now_is(tmp_path, tiny_weights):
    """LAVA on linears becomes PEFT's LoRA, and that an adapter folder of ours."""
    config = Lava(rank=2, targets=[r"attn\.qkv$"])
    record = record_of(tiny_weights, config)
    network = trained(record, 0)
    save_peft(network, config, tmp_path / "peft", None, record)
    found = open_model(str(tmp_path / "peft"))
    assert isinstance(found.record.adapter, LoRA)
    save_adapter(found.network, found.record, tmp_path / "folder")
    again = open_model(str(tmp_path / "folder"))
    x = torch.randn(1, 3, 28, 42)
    with torch.no_grad():
        torch.testing.assert_close(again.network.eval()(x), network(x))


def test_peft__of_an_encoder_as_base_goes_into_a_bank(tmp_path, tiny_weights):
    """Its head was new when training began, and is part of the adapter."""
    config = LoRA(rank=2, targets=[r"attn\.qkv$"])
    given = record_of(tiny_weights, config)
    base = Base(str(tiny_weights), "encoder")
    plain = DepthNetwork(given.network)
    base.fill(plain)
    record = replace(given, base=base, base_sha256=base.fingerprint(plain))
    network = trained(record, 0)
    save_peft(network, config, tmp_path / "a", None, record)
    opened = open_adapter(tmp_path / "a")
    other = DepthNetwork(given.network)
    base.fill(other)
    bank = AdapterBank(other.eval())
    bank.add("a", opened)
    x = torch.randn(1, 3, 28, 42)
    with torch.no_grad(), bank.select("a"):
        torch.testing.assert_close(bank.network(x), network(x))


@pytest.mark.parametrize("form", ["folder", "checkpoint", "peft"])
@pytest.mark.parametrize(("change", "said"), DAMAGE.values(), ids=DAMAGE.keys())
def test_open__a_description_changed_by_other_hands_is_one_error(
    kept, form, change, said
):
    path = kept[0][form]
    change_description(path, change)
    for opened in (open_model, open_adapter):
        with pytest.raises(CheckpointError, match=said):
            opened(path)


def test_description__of_a_newer_program_or_of_text_is_one_error(kept, tmp_path):
    content = torch.load(kept[0]["checkpoint"], weights_only=True)
    for change, said in (
        ({"format_version": 99}, "update the program"),
        ({"record": "models.artefacts.language.record.LanguageRecord"}, "no depth"),
        ({"network": {"shape": "round"}, "adapter": None}, "not as this program"),
    ):
        path = tmp_path / "changed.ckpt"
        torch.save(content | {KEY: content[KEY] | change}, path)
        with pytest.raises(CheckpointError, match=said):
            identify(path)
