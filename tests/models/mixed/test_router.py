"""A router learns to tell domains apart, and has no influence on adapters."""

import pytest
import torch

from datamodules.inputs import normalise
from datamodules.synthetic import SyntheticFrames
from models.adapters import AdapterError
from models.artefacts.files import read_tensors
from models.artefacts.mixed import StoredRouter
from models.errors import CheckpointError
from models.router import Router, new_router, pooled_features, router_of
from tests.models.mixed.runs import CONFIGS, assert_same, data, fit, module, put, state


def stored(path):
    return StoredRouter(*read_tensors(path, CheckpointError), str(path))


def test_router__does_not_change_what_adapters_become(tiny_weights):
    first = module(tiny_weights)
    starts = {name: state(first, name) for name in CONFIGS}
    found = {}
    for router in (True, False):
        model = module(tiny_weights, router=router)
        for name in CONFIGS:
            put(model, name, starts[name])
        fit(model, data(), max_epochs=1, limit_val_batches=0)
        found[router] = {name: state(model, name) for name in CONFIGS}
    for name in CONFIGS:
        assert_same(found[True][name], found[False][name])


def test_router__comes_back_from_its_file(tiny_weights, tmp_path):
    model = module(tiny_weights)
    torch.nn.init.normal_(model.router.linear.weight)
    model.router.save(tmp_path / "router.safetensors")
    again = router_of(stored(tmp_path / "router.safetensors"))
    assert (again.names, again.image_size) == (("rooms", "streets"), (28, 42))
    pooled = torch.randn(3, 256)
    with torch.no_grad():
        rows = again(pooled)
        assert torch.equal(rows, model.router(pooled))
    again.check(model.bank, "it")
    for choice, row in zip(again.choices(pooled), rows.softmax(1), strict=True):
        assert choice.confidence == pytest.approx(float(row.max()))
        assert again.names.index(choice.adapter) == int(row.argmax())


def test_router__features_are_those_of_the_base_without_gradient(tiny_weights):
    model = module(tiny_weights)
    image = torch.randn(2, 3, 28, 42)
    before = pooled_features(model.bank, image)
    for _, parameter in model.trained_parameters():
        torch.nn.init.normal_(parameter)
    with model.bank.select("rooms"):
        assert torch.equal(pooled_features(model.bank, image), before)
    assert not before.requires_grad


def test_router__for_others_is_refused(tiny_weights, tmp_path):
    model = module(tiny_weights)
    own = model.router
    with pytest.raises(AdapterError, match="no adapter caves among rooms, streets"):
        Router(["rooms", "caves"], 256, (28, 42), own.encoder_sha256).check(
            model.bank, "it"
        )
    with pytest.raises(AdapterError, match="reads an encoder with SHA-256"):
        Router(own.names, 256, (28, 42), "0" * 64).check(model.bank, "it")
    with pytest.raises(CheckpointError, match="is no router of this project"):
        router_of(StoredRouter({"linear.weight": torch.zeros(2, 3)}, {}, "it"))


def test_router__on_held_out_frames_is_right():
    """Of the packaged network, which has seen rooms; trained on 32 frames of each."""
    model = module("tiny-rooms", dict.fromkeys(CONFIGS, CONFIGS["rooms"]), router=False)
    router = new_router(model.bank, (56, 84))

    def features(split, count):
        rows, names = [], []
        for name in CONFIGS:
            frames = SyntheticFrames(name, split, count, (56, 84))
            images = torch.stack([normalise(frames[i].image) for i in range(count)])
            rows.append(pooled_features(model.bank.eval(), images))
            names += [name] * count
        return torch.cat(rows), names

    seen, names = features("train", 32)
    optimizer = torch.optim.AdamW(router.parameters(), 1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        router.loss(seen, names).backward()
        optimizer.step()
    held_out, names = features("test", 32)
    right = [
        c.adapter == n for c, n in zip(router.choices(held_out), names, strict=True)
    ]
    assert sum(right) / len(right) >= 0.95
