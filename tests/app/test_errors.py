import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from app.errors import one_line_errors


def test_options_that_lightning_finds_contradictory__are_one_line(capsys):
    @one_line_errors
    def command():
        Trainer(enable_checkpointing=False, callbacks=[ModelCheckpoint()])

    with pytest.raises(SystemExit, match="1"):
        command()
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "`enable_checkpointing=False`" in error
    assert error.count("\n") == 1


def test_what_is_nobodys_mistake__keeps_its_traceback():
    @one_line_errors
    def command():
        raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"):
        command()
