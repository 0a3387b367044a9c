"""Lightning's own averaging of weights on checkpoints that lack the frozen base."""

import pytest
import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    StochasticWeightAveraging,
)

from app.training.checkpoints import Recovery
from models.artefacts.checkpoint import load_checkpoint, read_checkpoint
from models.artefacts.files import read_torch
from models.depth_module import AVERAGED
from models.errors import CheckpointError
from tests.models.test_depth_module import StopAt, data, module, trainer


def averaging():
    return EMAWeightAveraging(decay=0.5, use_buffers=False)


def test_ema__a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, tiny_weights):
    seed_everything(0, verbose=False)
    whole = module(tiny_weights)
    trainer(tmp_path / "whole", averaging(), epochs=1).fit(whole, data())

    cut = trainer(tmp_path / "cut", averaging(), StopAt(2), epochs=1)
    with pytest.raises(RuntimeError, match="killed"):
        cut.fit(module(tiny_weights), data())
    resumed = module(tiny_weights)
    last = tmp_path / "cut" / "last.ckpt"
    again = trainer(tmp_path / "cut", averaging(), epochs=1)
    again.fit(resumed, data(), ckpt_path=last)

    state = resumed.network.state_dict()
    for name, value in whole.network.state_dict().items():
        assert torch.equal(state[name], value), name


def test_ema__a_checkpoint_holds_the_average_and_no_frozen_base(tmp_path, tiny_weights):
    trained = module(tiny_weights)
    trainer(tmp_path, averaging(), epochs=1).fit(trained, data())

    content = read_torch(tmp_path / "last.ckpt", CheckpointError)
    names = {f"network.{name}" for name in trained.record.saved_names(trained.network)}
    assert content["state_dict"].keys() == content[AVERAGED].keys() == names
    network, _ = load_checkpoint(tmp_path / "last.ckpt")
    state = network.state_dict()
    for name, value in trained.network.state_dict().items():
        assert torch.equal(state[name], value), name


@pytest.mark.filterwarnings("ignore:SWA is currently only supported every epoch")
def test_swa__a_run_is_resumed_after_the_rates_were_taken_over(tmp_path, tiny_weights):
    def swa():
        return StochasticWeightAveraging(swa_lrs=1e-3, swa_epoch_start=1)

    trainer(tmp_path, swa(), epochs=2).fit(module(tiny_weights), data())
    again = trainer(tmp_path, swa(), epochs=3)
    again.fit(module(tiny_weights), data(), ckpt_path=tmp_path / "last.ckpt")
    assert again.global_step == 12


@pytest.mark.filterwarnings("ignore:SWA is currently only supported every epoch")
def test_swa__the_average_is_in_the_last_checkpoint(tmp_path, tiny_weights):
    swa = StochasticWeightAveraging(swa_lrs=1e-3, swa_epoch_start=1)
    learner = module(tiny_weights)
    recovery = Recovery(10, str(tmp_path))
    trainer(tmp_path, swa, recovery, epochs=3).fit(learner, data())
    _, tensors = read_checkpoint(tmp_path / "last.ckpt")
    found = learner.network.state_dict()
    assert tensors.keys() <= found.keys()
    assert all(torch.equal(tensors[name], found[name]) for name in tensors)
