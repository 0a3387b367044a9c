"""A run that goes on otherwise than it began: under a stated rule, or refused."""

import signal
import time
from pathlib import Path

import pytest
import torch

from app.training.command import main
from tests.app.training.test_train import run, write_config

RUN = Path("runs/small/version_0")
LAST = RUN / "checkpoints/last.ckpt"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


CASES = {
    "more epochs": (
        ("--trainer.max_epochs", "3"),
        0,
        "resumed at step 8 with 12 steps",
    ),
    "fewer epochs": (("--trainer.max_epochs", "1"), 1, "has done 2 epochs, more than"),
    "as many epochs": ((), 0, "nothing is left"),
    "another batch size": (
        ("--data.batch_size", "4", "--trainer.max_epochs", "4"),
        0,
        "data.batch_size is 4, not 2",
    ),
    "more devices": (
        (
            *("--trainer.devices", "2", "--trainer.strategy", "ddp"),
            *("--trainer.max_epochs", "3"),
        ),
        0,
        "trainer.devices is 2, not 1",
    ),
    "another rate": (
        ("--model.optimisation.adapter_lr", "0.01", "--trainer.max_epochs", "3"),
        0,
        "adapter lr 0.01, not 0.001",
    ),
    "fewer frames": (
        ("--data.n_train", "4", "--trainer.max_epochs", "4"),
        0,
        "data.n_train is 4, not 8",
    ),
    "another max_depth": (
        ("--data.domain", "rooms", "--trainer.max_epochs", "3"),
        1,
        "max_depth=80.0",
    ),
}


@pytest.mark.slow
def test_resume__follows_its_rule(tmp_path, tiny_weights):
    """Through train.py itself, each from the same checkpoint."""
    config = str(write_config(tmp_path, tiny_weights))
    main(["fit", "--config", config])
    first = LAST.read_bytes()
    for name, (more, code, said) in CASES.items():
        LAST.write_bytes(first)
        process = run("fit", "--config", config, "--ckpt_path", str(LAST), *more)
        output = process.communicate(timeout=240)[0]
        assert process.returncode == code, (name, output)
        assert said in output, (name, output)
        assert output.count("error: ") == code, (name, output)
        assert (LAST.read_bytes() == first) == (code == 1 or not more), name


def test_ckpt_path__last_is_the_newest_run_of_the_recipe(
    tmp_path, tiny_weights, caplog, capsys
):
    """One command that begins a run, goes on with it, and ends it."""
    config = str(write_config(tmp_path, tiny_weights))
    command = ["fit", "--config", config, "--ckpt_path", "last"]
    with caplog.at_level("INFO"):
        main([*command, "--trainer.max_epochs", "1"])
    assert "has a last.ckpt yet: this one begins anew" in caplog.text
    main(command)
    assert torch.load(LAST, weights_only=True)["global_step"] == 8
    # Two records: of how it began, and of how it went on.
    found = {path.name for path in RUN.iterdir()}
    assert {"config_1.yaml", "config.yaml", "metrics_1.csv", "metrics.csv"} <= found
    records = {path: path.read_bytes() for path in RUN.glob("*.*") if path.is_file()}
    capsys.readouterr()
    main(command)
    assert "2 epochs, 8 steps: nothing is left" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in records} == records


def test_recovery__goes_on_within_an_epoch(tmp_path, tiny_weights):
    """Killed before any validation: the clock's checkpoint is there to go on from."""
    config = str(write_config(tmp_path, tiny_weights))
    clock = ("--recovery.minutes", "0.0001", "--data.batch_size", "1")
    clock += ("--data.n_train", "40")
    process = run("fit", "--config", config, *clock)
    deadline = time.monotonic() + 120
    while not LAST.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    place = torch.load(LAST, weights_only=True)
    assert place["epoch"] == 0
    assert 0 < place["global_step"] < 40
    assert place["global_step"] % 8 == 0
    main(["fit", "--config", config, *clock, "--ckpt_path", "last"])
    assert torch.load(LAST, weights_only=True)["global_step"] == 80


@pytest.mark.parametrize(
    ("more", "found"),
    [
        (["--trainer.logger", "false"], False),
        (["--trainer.logger", "lightning.pytorch.loggers.CSVLogger"], True),
    ],
)
def test_logger__does_not_decide_where_a_run_is(tmp_path, tiny_weights, more, found):
    recipe = write_config(tmp_path, tiny_weights).rename(tmp_path / "config.yaml")
    before = recipe.read_bytes()
    if found:
        more = [*more, "--trainer.logger.save_dir", "elsewhere"]
    once = ["--trainer.max_epochs", "1"]
    main(["fit", "--config", str(recipe), *once, *more])
    run_folder = Path("runs/config/version_0")
    names = {path.name for path in run_folder.iterdir()}
    assert {"checkpoints", "config.yaml", "previews", "summary.json"} <= names
    assert recipe.read_bytes() == before
    assert Path("elsewhere").exists() == found
    assert {p.name for p in Path().iterdir()} - {"elsewhere"} == {"config.yaml", "runs"}


def test_logger__whose_package_is_missing_is_one_line(tmp_path, tiny_weights, capsys):
    config = str(write_config(tmp_path, tiny_weights))
    logger = "lightning.pytorch.loggers.WandbLogger"
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", config, "--trainer.logger", logger])
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert "error: Requirement 'wandb" in error
    assert not Path("runs/small/version_0/config.yaml").exists()


@pytest.mark.parametrize(
    "option",
    ["--data.augment.crop", "--model.optimisation.encoder_lr", "--model.adapter.alpha"],
)
def test_null__is_a_value_wherever_it_is_allowed(
    tmp_path, tiny_weights, monkeypatch, option
):
    config = str(write_config(tmp_path, tiny_weights))
    dry = ["--trainer.fast_dev_run", "1"]
    main(["fit", "--config", config, *dry, option, "null"])
    assert {path.name for path in Path().iterdir()} <= {"small.yaml", "runs"}
    assert not list(Path().rglob("*.ckpt"))


def step_of(path: Path) -> int:
    step: int = torch.load(path, weights_only=True, mmap=True)["global_step"]
    return step


def test_last__is_the_end_of_a_run_that_breaks_an_epoch_off(
    tmp_path, tiny_weights, capsys
):
    command = ["fit", "--config", str(write_config(tmp_path, tiny_weights))]
    main([*command, "--trainer.max_steps", "6"])
    assert step_of(LAST) == 6
    assert step_of(LAST.with_name("best.ckpt")) == 4
    assert "after is of step 4, the last one that was" in capsys.readouterr().out
    main([*command, "--trainer.max_steps", "6", "--ckpt_path", "last"])
    assert "all 6 steps: nothing is left; give more --trainer.max_steps" in (
        capsys.readouterr().out
    )
    main([*command, "--ckpt_path", "last"])
    assert step_of(LAST) == 8
    progress = torch.load(LAST, weights_only=True)["loops"]["fit_loop"]
    assert progress["epoch_progress"]["current"]["processed"] == 2
    assert "WARNING: after" not in capsys.readouterr().out


def test_last__is_the_end_before_any_validation(tmp_path, tiny_weights):
    command = ["fit", "--config", str(write_config(tmp_path, tiny_weights))]
    main([*command, "--trainer.max_steps", "2", "--trainer.max_epochs", "1"])
    assert step_of(LAST) == 2
    main([*command, "--trainer.max_epochs", "1", "--ckpt_path", "last"])
    assert step_of(LAST) == 4


@pytest.mark.parametrize("every", ["1", "2"])
def test_last__follows_what_is_not_the_best(tmp_path, tiny_weights, every):
    """Rates of 0: no validation is better than the first."""
    rates = ("adapter_lr", "head_lr")
    still = [x for r in rates for x in (f"--model.optimisation.{r}", "0")]
    command = ["fit", "--config", str(write_config(tmp_path, tiny_weights)), *still]
    main(
        [*command, "--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch", every]
    )
    assert step_of(LAST) == 12
    assert step_of(LAST.with_name("best.ckpt")) == 4 * int(every)


def test_refused_resume__leaves_the_records_as_they_were(
    tmp_path, tiny_weights, capsys
):
    command = ["fit", "--config", str(write_config(tmp_path, tiny_weights))]
    main(command)
    records = {
        p.name: p.read_bytes() for p in RUN.iterdir() if p.suffix in (".csv", ".yaml")
    }
    assert {*records} >= {"config.yaml", "metrics.csv"}
    more = ["--trainer.max_epochs", "3", "--rate_finder.steps", "60"]
    with pytest.raises(SystemExit):
        main([*command, "--ckpt_path", "last", *more])
    assert "is for the beginning of a run" in capsys.readouterr().err
    now = {
        p.name: p.read_bytes() for p in RUN.iterdir() if p.suffix in (".csv", ".yaml")
    }
    assert now == records


@pytest.mark.parametrize(
    "mistake",
    [
        ["--ckpt_path", "nope.ckpt"],
        ["--data.seed", "-1"],
        ["--data.image_size", "[0, 0]"],
    ],
)
def test_refused_fit__leaves_no_folder_of_a_run(tmp_path, tiny_weights, mistake):
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(write_config(tmp_path, tiny_weights)), *mistake])
    assert not RUN.exists()
