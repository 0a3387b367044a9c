"""A killed run that goes on sees what it would have seen, however it is limited."""

from contextlib import suppress

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from app.training.checkpoints import Recovery
from datamodules import SyntheticDataModule
from models.resuming import end_of_epoch

SIZE = (28, 42)
KILLED_AFTER = (3, 6, 8, 9, 11)
"""Batches: epochs have 8, 6 or 3."""
LIMITS = {
    "epochs": {"max_epochs": 3},
    "steps": {"max_steps": 22, "max_epochs": -1},
    "steps before epochs": {"max_steps": 22, "max_epochs": 9},
    "epochs before steps": {"max_epochs": 3, "max_steps": 99},
    "batches": {"max_epochs": 4, "limit_train_batches": 3},
    "a part of the batches": {"max_epochs": 4, "limit_train_batches": 0.75},
    "overfitted": {"max_epochs": 4, "overfit_batches": 3},
    "accumulated": {"max_epochs": 4, "accumulate_grad_batches": 2},
    "validated within": {"max_epochs": 3, "val_check_interval": 3},
    "validated seldom": {"max_epochs": 4, "check_val_every_n_epoch": 2},
    "validated by steps": {
        "max_steps": 22,
        "val_check_interval": 5,
        "check_val_every_n_epoch": None,
    },
}


class Toy(LightningModule):
    """What training sees, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, ...]] = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.trainer.current_epoch, *batch["index"].tolist()))
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        self.log("score", 1.0 / (1 + self.trainer.global_step), batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    def on_load_checkpoint(self, checkpoint):
        end_of_epoch(checkpoint)


class Numbered(torch.utils.data.Dataset):
    """Frames that are their own number, in place of what costs time."""

    def __init__(self, frames):
        self.frames = frames

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, key):
        index = key[1] if isinstance(key, tuple) else key
        return {"index": torch.tensor(index)}


class Numbers(SyntheticDataModule):
    """The project's loaders over them."""

    collate = property(lambda self: torch.utils.data.default_collate)

    def train_set(self):
        return Numbered(self._frames["train"])

    def val_dataloader(self):
        return torch.utils.data.DataLoader(range(1))


class Killed(Callback):
    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if len(pl_module.seen) == self.after:
            raise KeyError("killed")


def fit(folder, limits, *callbacks, ckpt_path=None) -> tuple[Toy, Trainer]:
    toy = Toy()
    data = Numbers("streets", n_train=16, n_val=1, image_size=SIZE, batch_size=2)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[
            ModelCheckpoint(
                folder,
                "best",
                monitor="score",
                save_last=True,
                enable_version_counter=False,
            ),
            Recovery(10, str(folder)),
            *callbacks,
        ],
        **limits,
    )
    with suppress(KeyError):
        trainer.fit(toy, data, ckpt_path=ckpt_path)
    return toy, trainer


class AtEnd(Callback):
    """A checkpoint of a run that has ended, as averaged weights are written."""

    def __init__(self, path) -> None:
        self.path = path

    def on_train_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("kind", ["max_epochs", "max_steps"])
def test_resume__of_what_was_written_after_training(tmp_path, kind):
    short, long = ({kind: n * (8 if kind == "max_steps" else 1)} for n in (2, 4))
    whole, _ = fit(tmp_path / "whole", long)
    fit(tmp_path / "a", short, AtEnd(tmp_path / "end.ckpt"))
    resumed, again = fit(tmp_path / "a", long, ckpt_path=tmp_path / "end.ckpt")
    assert resumed.seen == whole.seen[16:]
    assert again.global_step == 32


@pytest.mark.filterwarnings("ignore:.*could not find the monitored key")
@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS.keys())
def test_resume__sees_what_an_uninterrupted_run_sees(tmp_path, limits):
    whole, run = fit(tmp_path / "whole", limits)
    for after in KILLED_AFTER:
        folder = tmp_path / str(after)
        fit(folder, limits, Killed(after))
        last = folder / "last.ckpt"
        if not last.exists():
            continue  # before the first one
        steps = torch.load(last, weights_only=True)["global_step"]
        batches = steps * limits.get("accumulate_grad_batches", 1)
        resumed, again = fit(folder, limits, ckpt_path=last)
        assert resumed.seen == whole.seen[batches:], after
        assert again.global_step == run.global_step
        assert again.current_epoch == run.current_epoch
