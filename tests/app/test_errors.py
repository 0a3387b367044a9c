"""What ends a command with one line, and what keeps its traceback."""

import errno
import os

import pytest
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel

from app.errors import one_line_errors


def trainer(*callbacks) -> Trainer:
    return Trainer(
        max_epochs=1,
        limit_train_batches=1,
        limit_val_batches=1,
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


class Faulty(BoringModel):
    def training_step(self, batch, batch_idx):
        raise ValueError("a fault")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (lambda: trainer(ModelCheckpoint()), "`enable_checkpointing=False`"),
        (lambda: Trainer(accelerator="cpu", strategy="dpp"), "strategy='dpp'"),
        (lambda: seed_everything(-1), "-1 is not in bounds"),
        (
            lambda: trainer(EarlyStopping("val_loss")).fit(BoringModel()),
            "metric `val_loss` which is not available",
        ),
    ],
)
def test_options_that_lightning_refuses__are_one_line(capsys, command, said):
    with pytest.raises(SystemExit, match="1"):
        one_line_errors(command)()
    error = capsys.readouterr().err
    last = error.splitlines()[-1]
    assert last.startswith("error: ")
    assert said in last
    assert "Traceback" not in error


def test_a_full_disk__is_one_line(capsys):
    @one_line_errors
    def command():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(SystemExit, match="1"):
        command()
    assert capsys.readouterr().err.startswith("error: No space left on device: ")


def test_what_fails_below_lightning__keeps_its_traceback():
    command = one_line_errors(lambda: trainer().fit(Faulty()))
    with pytest.raises(ValueError, match="a fault"):
        command()


def test_what_lightning_stumbles_over__keeps_its_traceback():
    command = one_line_errors(lambda: seed_everything("one"))
    with pytest.raises(ValueError, match="invalid literal"):
        command()


def test_ctrl_c__is_one_line_and_the_shells_code(capsys):
    @one_line_errors
    def command() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stopped:
        command()
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"
