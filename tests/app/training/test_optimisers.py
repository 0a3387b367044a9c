"""Optimisers by their class path, as a person types them."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from app.training.command import main
from models.errors import CheckpointError
from models.optimisation import Optimisation
from models.optimisers import Flora
from tests.app.training.test_train import write_config
from tests.models.test_depth_module import StopAt, data, module

FLORA = Path(__file__).parents[3] / "configs/adapters/full_flora.yaml"
RUN = Path("runs/small-full_flora/version_0")
OPTIMIZER = "--model.optimisation.optimizer"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def flora(tensors):
    return Flora(tensors, rank=2, kappa=3)


def learner(weights, optimizer=flora):
    options = Optimisation(head_lr=1e-3, optimizer=optimizer)
    return module(weights, None, optimisation=options, gradient_checkpointing=True)


def trainer(folder, *callbacks, epochs=3, **options) -> Trainer:
    keep = ModelCheckpoint(folder, save_last=True, every_n_train_steps=1)
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[keep, *callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        gradient_clip_val=0.5,
        accumulate_grad_batches=2,
        **options,
    )


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_flora__resumed_within_a_period_ends_equal_to_the_bit(
    tmp_path, tiny_weights, precision
):
    """Clipped, over two batches a step; 6 steps in periods of 3, killed after 4."""
    whole = learner(tiny_weights)
    run = trainer(tmp_path / "whole", precision=precision)
    run.fit(whole, data())
    (optimizer,) = run.optimizers
    assert {state["step"] for state in optimizer.state.values()} == {6}
    cut = trainer(tmp_path / "cut", StopAt(4), precision=precision)
    with pytest.raises(RuntimeError, match="killed"):
        cut.fit(learner(tiny_weights), data())
    last = tmp_path / "cut/last.ckpt"
    resumed = learner(tiny_weights)
    again = trainer(tmp_path / "cut", precision=precision)
    again.fit(resumed, data(), ckpt_path=last)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name
    # Of another rank: refused before anything changes.
    other = learner(tiny_weights, lambda tensors: Flora(tensors, rank=3, kappa=3))
    saved = torch.load(last, weights_only=True)
    with pytest.raises(CheckpointError, match=r"Flora\(rank=2, .*asks for .*rank=3"):
        other.check_resumable(saved)


def test_flora__by_its_recipe(tmp_path, tiny_weights, capsys):
    config = ["--config", str(write_config(tmp_path, tiny_weights))]
    config += ["--config", str(FLORA), "--trainer.max_epochs", "1"]
    main(["fit", *config, "--trainer.precision", "bf16-mixed"])
    content = torch.load(RUN / "checkpoints/last.ckpt", weights_only=True)
    said = content["lava_depth"]["training"]["optimizer"]
    assert said.startswith("models.optimisers.flora.Flora(rank=16, kappa=1000, ")
    (state,) = content["optimizer_states"]
    names = [name for group in state["param_groups"] for name in group["param_names"]]
    assert "pretrained.blocks.0.attn.qkv.weight" in names
    assert len(names) == len(state["state"])
    before = (RUN / "metrics.csv").read_text()
    capsys.readouterr()
    more = ["--ckpt_path", str(RUN / "checkpoints/last.ckpt"), f"{OPTIMIZER}.rank", "8"]
    with pytest.raises(SystemExit):
        main(["fit", *config, *more])
    error = capsys.readouterr().err
    assert "Flora(rank=16, " in error
    assert "Flora(rank=8, " in error
    assert error.count("\n") == 1
    assert (RUN / "metrics.csv").read_text() == before


REFUSED = {
    "rank": (("models.optimisers.Flora", "rank", "0"), "Flora's rank 0 must be"),
    "projection": (
        ("models.optimisers.Flora", "projection", "sparse"),
        "optimizer.projection is 'sparse', but must be 'orthonormal', 'gaussian'; see",
    ),
    "Muon": (("torch.optim.Muon", "momentum", "0.9"), "Muon only supports 2D"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_optimizer__that_cannot_be_made_is_one_line(
    tmp_path, tiny_weights, capsys, name
):
    (path, option, value), message = REFUSED[name]
    config = ["--config", str(write_config(tmp_path, tiny_weights, adapter=None))]
    given = [OPTIMIZER, path, f"{OPTIMIZER}.{option}", value]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *config, *given])
    assert stop.value.code != 0
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "make",
    [
        torch.optim.Adafactor,
        lambda tensors: torch.optim.SGD(tensors, momentum=0.9),
        pytest.param(torch.optim.RMSprop, marks=pytest.mark.slow),
    ],
    ids=["Adafactor", "SGD", "RMSprop"],
)
def test_optimizer__of_torch_trains(tmp_path, tiny_weights, make):
    trained = learner(tiny_weights, make)
    before = {n: p.detach().clone() for n, p in trained.network.named_parameters()}
    trainer(tmp_path, epochs=1).fit(trained, data())
    for name, parameter in trained.network.named_parameters():
        if parameter.ndim > 1:
            moved = not torch.equal(parameter, before[name])
            assert moved == parameter.requires_grad, name
