"""Training end to end on a few tiny frames, without the command line."""

import json

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import load_file, save_file

from datamodules import FolderDataModule, SyntheticDataModule
from models import DepthAnythingModule, DINOv2Module
from models.adapters import AdapterError, DoRA, Lava, LoRA, SVDiff, TrainFully, Tucker
from models.artefacts.adapter_folder import load_adapter, save_adapter
from models.artefacts.checkpoint import load_checkpoint, read_checkpoint
from models.artefacts.merged import save_network
from models.errors import CheckpointError
from models.networks import DepthNetwork, NetworkSpec
from models.optimisation import Optimisation
from models.scoring import Scoring

SIZE = (28, 42)
LAVA = Lava(rank=2)


def data() -> SyntheticDataModule:
    return SyntheticDataModule(
        "streets", n_train=8, n_val=3, image_size=SIZE, batch_size=2, cache=True
    )


def module(weights, adapter=LAVA, **options) -> DepthAnythingModule:
    seed_everything(0, verbose=False)
    return DepthAnythingModule(
        80.0, SIZE, size="tiny", weights=str(weights), adapter=adapter, **options
    )


class StopAt(Callback):
    """Stand in for a process that is killed after some step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise RuntimeError("killed")


def trainer(folder, *callbacks, epochs=3, steps=-1) -> Trainer:
    return Trainer(
        max_epochs=epochs,
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        callbacks=[
            ModelCheckpoint(folder, save_last=True, every_n_train_steps=1),
            *callbacks,
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


@pytest.mark.parametrize("steps", [-1, 12], ids=["by epochs", "by steps"])
@pytest.mark.parametrize("killed_at", [4, 6], ids=["between epochs", "within an epoch"])
def test_resume__ends_bit_equal_to_an_uninterrupted_run(
    tmp_path, tiny_weights, killed_at, steps
):
    whole = module(tiny_weights)
    run = trainer(tmp_path / "whole", steps=steps)
    run.fit(whole, data())

    cut = trainer(tmp_path / "cut", StopAt(killed_at), steps=steps)
    with pytest.raises(RuntimeError, match="killed"):
        cut.fit(module(tiny_weights), data())
    resumed = module(tiny_weights)
    again = trainer(tmp_path / "cut", steps=steps)
    again.fit(resumed, data(), ckpt_path=tmp_path / "cut" / "last.ckpt")

    assert again.global_step == run.global_step == 12
    assert again.callback_metrics == run.callback_metrics
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name


@pytest.mark.parametrize("size", [1, 4])
def test_resume__within_an_epoch_at_the_same_sample(tmp_path, tiny_weights, size):
    """8 frames in batches of 2, killed after the second batch, then in other ones."""
    with pytest.raises(RuntimeError, match="killed"):
        trainer(tmp_path, StopAt(2)).fit(module(tiny_weights), data())
    seen = []

    class Note(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append((trainer.current_epoch, *batch["path"]))

    resumed, again = data(), trainer(tmp_path, Note(), epochs=2)
    resumed.batch_size = size
    again.fit(module(tiny_weights), resumed, ckpt_path=tmp_path / "last.ckpt")
    whole = data()
    whole.setup("fit")
    order = [path for batch in whole.train_dataloader() for path in batch["path"]]
    first = [path for epoch, *paths in seen for path in paths if epoch == 0]
    assert first == order[4:]
    assert sum(len(paths) for _, *paths in seen) == 4 + 8
    schedule = again.lr_scheduler_configs[0].scheduler
    assert schedule.steps == again.global_step == 2 + len(seen)


@pytest.mark.parametrize("times", [0.25, 1.0, 4.0])
def test_before__median_scaled_is_what_test_gives(rgbd, tiny_weights, times):
    """Scaled before the protocol clamps: beyond its range there is more to mend."""
    model = module(tiny_weights, optimisation=Optimisation(0.0, 0.0))
    model.metres = lambda depth, batch: times * depth
    options = {"logger": False, "max_steps": 1, "enable_checkpointing": False}
    run = Trainer(accelerator="cpu", num_sanity_val_steps=-1, **options)
    given = {"image_size": SIZE, "batch_size": 2, "num_workers": 0}
    frames = FolderDataModule(str(rgbd), 1000, 10.0, val_fraction=0.5, **given)
    run.fit(model, frames)
    before = model.rows_before()[""]
    model.scoring = Scoring(align="median")
    (found,) = run.test(model, frames, verbose=False)
    assert {f"test/{name}": value for name, value in before.items()} == found


def test_checkpoint__holds_what_was_trained_and_nothing_else(tmp_path, tiny_weights):
    trained = module(tiny_weights)
    trainer(tmp_path, epochs=1).fit(trained, data())
    record, tensors = read_checkpoint(tmp_path / "last.ckpt")
    expected = {n for n, p in trained.network.named_parameters() if p.requires_grad}
    assert set(tensors) == expected
    assert all(".adapter." in n or "output_conv2.2." in n for n in tensors)
    assert record == trained.record
    network, _ = load_checkpoint(tmp_path / "last.ckpt")
    x = torch.randn(1, 3, *SIZE)
    assert torch.equal(network.eval()(x), trained.network.eval()(x))


def test_checkpoint__of_another_base_is_refused(tmp_path, tiny_weights):
    save_network(
        DepthNetwork(NetworkSpec("tiny", "v2", "metric", 10.0)), tmp_path / "other"
    )
    trainer(tmp_path, epochs=1).fit(module(tiny_weights), data())
    with pytest.raises(CheckpointError, match="give the same base"):
        trainer(tmp_path).fit(
            module(tmp_path / "other"), data(), ckpt_path=tmp_path / "last.ckpt"
        )


@pytest.mark.parametrize("other", [Lava(rank=3), LoRA(rank=2), None])
def test_checkpoint__of_another_adapter_is_refused(tmp_path, tiny_weights, other):
    trainer(tmp_path, epochs=1).fit(module(tiny_weights), data())
    with pytest.raises(CheckpointError, match="adapter is another one"):
        trainer(tmp_path).fit(
            module(tiny_weights, other), data(), ckpt_path=tmp_path / "last.ckpt"
        )


def test_scores__are_kept_until_the_next_validation(tmp_path, tiny_weights):
    trainer(tmp_path, epochs=2).fit(module(tiny_weights), data())
    last = tmp_path / "last.ckpt"
    before, _ = read_checkpoint(last)
    assert before.scores["n_images"] == 3
    again = trainer(tmp_path, epochs=3)
    again.limit_val_batches = 0
    again.fit(module(tiny_weights), data(), ckpt_path=last)
    assert again.global_step == 12
    after, _ = read_checkpoint(last)
    assert after.scores == before.scores


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint", {"epoch": 1}])
def test_load_checkpoint__unusable_file_is_named(tmp_path, content):
    path = tmp_path / "x.ckpt"
    if isinstance(content, dict):
        torch.save(content, path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.ckpt"):
        load_checkpoint(path)


def test_before_training__adapted_module_predicts_like_its_base(tiny_weights):
    adapted, plain = module(tiny_weights), module(tiny_weights, None)
    x = torch.randn(1, 3, *SIZE)
    assert torch.equal(adapted(x), plain(x))


def test_relative_base__starts_at_the_asked_depth(tmp_path):
    save_network(DepthNetwork(NetworkSpec("tiny", "v2", "relative")), tmp_path / "r")
    started = module(tmp_path / "r", start_depth=12.0)
    depth = started(torch.randn(1, 3, *SIZE))
    torch.testing.assert_close(depth, torch.full_like(depth, 12), rtol=0.05, atol=0)


def test_metric_base__start_depth_is_said_to_do_nothing(tiny_weights):
    with pytest.warns(UserWarning, match="start_depth 12 has no effect: .* is metric"):
        module(tiny_weights, start_depth=12.0)


def test_all_invalid_truth__step_is_finite(tiny_weights):
    learner = module(tiny_weights)
    source = data()
    source.setup("fit")
    batch = next(iter(source.train_dataloader()))
    batch["valid"][:] = False
    learner.log = lambda *_, **__: None
    learner.training_step(batch, 0).backward()
    gradients = [p.grad for p in learner.parameters() if p.grad is not None]
    assert gradients
    assert all(g.isfinite().all() for g in gradients)


def test_dinov2__trains_head_and_adapter_and_reloads(tmp_path, tiny_weights):
    seed_everything(0, verbose=False)
    learner = DINOv2Module(
        80.0, SIZE, size="tiny", weights=str(tiny_weights), adapter=LoRA(rank=2)
    )
    head = [n for n, p in learner.network.named_parameters() if p.requires_grad]
    assert any(n.startswith("depth_head.projects") for n in head)
    assert not any("refinenet4.resConfUnit1" in n for n in head)
    assert all(".adapter." in n for n in head if n.startswith("pretrained."))
    trainer(tmp_path, epochs=1).fit(learner, data())
    network, _ = load_checkpoint(tmp_path / "last.ckpt")
    x = torch.randn(1, 3, *SIZE)
    assert torch.equal(network.eval()(x), learner.network.eval()(x))


def test_optimiser__adapter_and_head_have_their_own_rates(tmp_path, tiny_weights):
    learner = module(tiny_weights)
    run = trainer(tmp_path, epochs=1)
    run.fit(learner, data())
    groups = {g["name"]: g for g in run.optimizers[0].param_groups}
    assert {n: g["initial_lr"] for n, g in groups.items()} == {
        "adapter": 1e-3,
        "head": 1e-4,
        "head_flat": 1e-4,
    }
    assert (groups["adapter"]["weight_decay"], groups["head"]["weight_decay"]) == (
        0,
        0.01,
    )


def test_optimiser__a_whole_network_has_a_rate_for_its_encoder(tmp_path, tiny_weights):
    rates = Optimisation(head_lr=1e-3, encoder_lr=1e-5)
    learner = module(tiny_weights, None, optimisation=rates)
    run = trainer(tmp_path, epochs=1)
    run.fit(learner, data())
    groups = {
        g["name"]: (g["initial_lr"], len(g["params"]))
        for g in run.optimizers[0].param_groups
    }
    assert {name: rate for name, (rate, _) in groups.items()} == {
        "head": 1e-3,
        "head_flat": 1e-3,
        "encoder": 1e-5,
        "encoder_flat": 1e-5,
    }
    trained = sum(p.requires_grad for p in learner.network.parameters())
    assert sum(count for _, count in groups.values()) == trained


@pytest.mark.parametrize("method", [Lava, LoRA, DoRA, Tucker, SVDiff, TrainFully])
def test_adapter_folder__round_trip(tmp_path, tiny_weights, method):
    ranked = method not in (SVDiff, TrainFully)
    learner = module(tiny_weights, method(rank=2) if ranked else method())
    with torch.no_grad():
        for parameter in learner.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
    save_adapter(learner.network, learner.record, tmp_path / "a")
    network, record = load_adapter(tmp_path / "a")
    x = torch.randn(1, 3, *SIZE)
    assert torch.equal(network.eval()(x), learner.network.eval()(x))
    assert record == learner.record
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "adapter.json",
        "adapter.safetensors",
    ]


def edit(folder, change):
    path = folder / "adapter.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def drop_tensor(folder):
    tensors = load_file(folder / "adapter.safetensors")
    del tensors["pretrained.blocks.0.attn.qkv.adapter.up"]
    save_file(tensors, folder / "adapter.safetensors")


def add_tensor(folder):
    tensors = load_file(folder / "adapter.safetensors")
    save_file({**tensors, "extra": torch.zeros(1)}, folder / "adapter.safetensors")


def cut(folder):
    path = folder / "adapter.safetensors"
    path.write_bytes(path.read_bytes()[:500])


DAMAGES = {
    "missing tensor": (drop_tensor, r"missing .*attn\.qkv\.adapter\.up"),
    "unexpected tensor": (add_tensor, "unexpected extra"),
    "wrong shape": (
        lambda f: edit(f, lambda c: c["adapter"]["options"].update(rank=3)),
        r"shape .*instead of",
    ),
    "another base": (
        lambda f: edit(f, lambda c: c.update(base_sha256="0" * 64)),
        "give the same base",
    ),
    "newer format": (
        lambda f: edit(f, lambda c: c.update(format_version=99)),
        "format version is 99",
    ),
    "unknown method": (
        lambda f: edit(f, lambda c: c["adapter"].update(method="Magic")),
        "'Magic' is not known",
    ),
    "unknown option": (
        lambda f: edit(f, lambda c: c["adapter"]["options"].update(magic=1)),
        "no option 'magic'",
    ),
    "cut off": (cut, "cannot be read"),
    "no JSON": (lambda f: (f / "adapter.json").write_text("{"), "not valid JSON"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_adapter_folder__damage_is_named(tmp_path, tiny_weights, name):
    learner = module(tiny_weights)
    save_adapter(learner.network, learner.record, tmp_path)
    damage, message = DAMAGES[name]
    damage(tmp_path)
    with pytest.raises((AdapterError, CheckpointError), match=message):
        load_adapter(tmp_path)
