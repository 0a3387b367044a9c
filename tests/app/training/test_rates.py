"""The search for learning rates: one option, and no trace but the rates."""

import re
from pathlib import Path

import pytest
import torch

from app.training.command import main
from tests.app.training.test_train import LAVA, write_config


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def trained(version: int) -> dict[str, torch.Tensor]:
    path = Path(f"runs/small/version_{version}/checkpoints/last.ckpt")
    return torch.load(path, weights_only=True)["state_dict"]


def test_search__leaves_the_run_as_one_that_was_given_its_rates(
    tmp_path, tiny_weights, caplog
):
    parts = {"targets": ["blocks"], "train_fully": ["scratch"]}
    adapter = {**LAVA, "init_args": parts}
    config = str(write_config(tmp_path, tiny_weights, adapter=adapter))
    fit = ["fit", "--config", config, "--trainer.max_epochs", "4"]
    main([*fit, "--rate_finder.steps", "14"])
    said = next(m for m in caplog.messages if "peak rates that were found" in m)
    rates = dict(re.findall(r"(\w+_lr) (\S+?)(?:,|$)", said))
    assert rates.keys() == {"adapter_lr", "head_lr"}
    assert float(rates["adapter_lr"]) == pytest.approx(10 * float(rates["head_lr"]))
    given = [f"--model.optimisation.{name}={value}" for name, value in rates.items()]
    main([*fit, *given])
    first, second = trained(0), trained(1)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert not list(tmp_path.glob(".lr_find*"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--rate_finder.steps", "9"], "more than the 8 steps"),
        (["--rate_finder.steps", "3"], "too few to tell a rate"),
        (["--rate_finder.steps", "-1"], "must be 0 or more"),
        (["--rate_finder.min_lr", "1", "--rate_finder.steps", "8"], "below max_lr"),
    ],
)
def test_search__that_cannot_be_is_one_line(
    tmp_path, tiny_weights, capsys, more, message
):
    config = str(write_config(tmp_path, tiny_weights))
    with pytest.raises(SystemExit):
        main(["fit", "--config", config, *more])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def test_search__is_of_the_beginning(tmp_path, tiny_weights, capsys):
    config = str(write_config(tmp_path, tiny_weights))
    main(["fit", "--config", config])
    more = ["--ckpt_path", "last", "--trainer.max_epochs", "6"]
    with pytest.raises(SystemExit):
        main(["fit", "--config", config, *more, "--rate_finder.steps", "20"])
    assert "is for the beginning of a run" in capsys.readouterr().err
