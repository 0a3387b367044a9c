"""What training and scoring refuse to go on with."""

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from datamodules import SyntheticDataModule
from models import DepthAnythingModule
from models.adapters import Lava
from models.errors import OptionError

SIZE = (28, 42)


def module(weights) -> DepthAnythingModule:
    return DepthAnythingModule(
        80.0, SIZE, size="tiny", weights=str(weights), adapter=Lava(rank=2)
    )


def data() -> SyntheticDataModule:
    return SyntheticDataModule(
        "streets", n_train=4, n_val=3, n_test=3, image_size=SIZE, batch_size=2
    )


def trainer(folder, *callbacks, **options) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{"max_epochs": 1, **options},
    )


class Diverge(Callback):
    """Stand in for a step that was too long."""

    def on_train_batch_end(self, trainer, pl_module, *_):
        trained = [p for p in pl_module.parameters() if p.requires_grad]
        with torch.no_grad():
            trained[0].fill_(torch.nan)


@pytest.mark.parametrize(
    "nothing", [{"max_epochs": 0}, {"max_steps": 0}, {"limit_train_batches": 0}]
)
def test_fit__without_a_step(tmp_path, tiny_weights, nothing):
    with pytest.raises(OptionError, match="no step to train"):
        trainer(tmp_path, **nothing).fit(module(tiny_weights), data())


def test_fit__without_an_end(tmp_path, tiny_weights):
    endless = trainer(tmp_path, max_epochs=-1, max_time="00:00:00:05")
    with pytest.raises(OptionError, match=r"max_epochs or trainer\.max_steps"):
        endless.fit(module(tiny_weights), data())


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
def test_precision_that_rounds_the_truth(tmp_path, tiny_weights, precision):
    rounding = trainer(tmp_path, precision=precision)
    with pytest.raises(OptionError, match="use bf16-mixed"):
        rounding.fit(module(tiny_weights), data())
    with pytest.raises(OptionError, match="use bf16-mixed"):
        rounding.test(module(tiny_weights), data(), verbose=False)


def test_fit__predictions_that_are_not_finite_are_no_score(tmp_path, tiny_weights):
    diverging = trainer(tmp_path, Diverge())
    with pytest.raises(OptionError, match="not finite on 3 of 3 val images"):
        diverging.fit(module(tiny_weights), data())
    assert not list(tmp_path.rglob("*.ckpt"))


def test_fit__without_validation_weights_that_are_not_finite(tmp_path, tiny_weights):
    diverging = trainer(tmp_path, Diverge(), limit_val_batches=0)
    with pytest.raises(OptionError, match=r"diverged before step 2: pretrained"):
        diverging.fit(module(tiny_weights), data())
    assert not list(tmp_path.rglob("*.ckpt"))


def test_test__one_broken_prediction_of_three(tmp_path, tiny_weights):
    broken = module(tiny_weights)
    broken.network.register_forward_hook(once_nan)
    with pytest.raises(OptionError, match="not finite on 1 of 3 test images"):
        trainer(tmp_path).test(broken, data(), verbose=False)


def once_nan(network, inputs, depth):
    """Break a prediction in the batch that has but one image."""
    if len(depth) == 1:
        depth[0, 0, 0, 0] = torch.inf
    return depth
