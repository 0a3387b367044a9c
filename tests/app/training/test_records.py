"""A run's records say what happened, and options that cannot hold are not accepted."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from app.training.command import main
from app.training.folder import new_run
from tests.app.training.test_train import folder_data, write_config
from tests.conftest import write_rgbd

ADAPTER = "--model.init_args.adapter.init_args."
RATES = "--model.init_args.optimisation."
LAST = "runs/small/version_0/checkpoints/last.ckpt"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_weights):
    """The folder of a run of two epochs, eight steps."""
    folder = tmp_path_factory.mktemp("run")
    config = str(write_config(folder, tiny_weights))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["fit", "--config", config])
    return folder


@pytest.fixture
def trained(run, tmp_path):
    """The recipe of a run, which has its records here."""
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    return str(tmp_path / "small.yaml")


def score() -> dict:
    return json.loads(Path(LAST).with_name("test_full.json").read_text())


@pytest.mark.parametrize(
    "other",
    [
        (f"{ADAPTER}alpha", "40"),
        (f"{ADAPTER}rank", "3"),
        pytest.param((f"{ADAPTER}qkv", "qv"), marks=pytest.mark.slow),
        ("--model.init_args.adapter", "models.adapters.LoRA"),
        ("--model.init_args.adapter", "null"),
    ],
    ids=lambda other: other[-1],
)
def test_test__uses_the_adapter_of_the_checkpoint(trained, capsys, other):
    main(["test", "--config", trained, "--ckpt_path", LAST])
    expected = score()
    Path(LAST).with_name("test_full.json").unlink()
    with pytest.warns(UserWarning, match="the checkpoint's own adapter is used"):
        main(["test", "--config", trained, "--ckpt_path", LAST, *other])
    assert score() == expected


@pytest.mark.parametrize("other", ["alpha", "rank", "dropout"])
def test_fit__with_another_adapter_than_the_checkpoints_is_refused(
    trained, capsys, other
):
    value = {"alpha": "40", "rank": "3", "dropout": "0.5"}[other]
    more = ["--ckpt_path", LAST, f"{ADAPTER}{other}", value]
    with pytest.raises(SystemExit):
        main(["fit", "--config", trained, *more])
    found = capsys.readouterr().err
    assert f"{other} is {float(value):g}" in found
    assert list(Path("runs/small/version_0").glob("metrics*.csv")) == [
        Path("runs/small/version_0/metrics.csv")
    ]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--trainer.max_epochs", "4"], "16 steps in all, not 8"),
        (["--data.init_args.batch_size", "1"], "16 steps in all, not 8"),
        (["--data.init_args.n_train", "12"], "not 8"),
    ],
    ids=["more epochs", "smaller batch", "more frames"],
)
def test_fit__goes_on_with_another_length(trained, caplog, more, said):
    epochs = [] if "--trainer.max_epochs" in more else ["--trainer.max_epochs", "3"]
    with caplog.at_level("INFO"):
        main(["fit", "--config", trained, "--ckpt_path", LAST, *epochs, *more])
    assert "resumed at step 8" in caplog.text
    content = torch.load(LAST, weights_only=True)
    assert content["global_step"] > 8
    assert list(Path("runs/small/version_0").glob("metrics_1.csv"))


def test_fit__goes_on_with_other_rates_and_says_so(trained, caplog):
    more = [f"{RATES}adapter_lr", "0.01", f"{RATES}weight_decay", "0.5"]
    longer = ["--trainer.max_epochs", "3"]
    with caplog.at_level("INFO"):
        main(["fit", "--config", trained, "--ckpt_path", LAST, *longer, *more])
    assert "adapter lr 0.01, not 0.001" in caplog.text
    assert "head weight_decay 0.5, not 0.01" in caplog.text
    (state,) = torch.load(LAST, weights_only=True)["optimizer_states"]
    groups = {group["name"]: group for group in state["param_groups"]}
    assert groups["adapter"]["initial_lr"] == 0.01
    assert groups["head"]["weight_decay"] == 0.5


def test_runs__that_begin_together_have_folders_of_their_own(tmp_path):
    runs = [new_run(tmp_path / "a") for _ in range(3)]
    assert [run.name for run in runs] == ["version_0", "version_1", "version_2"]


@pytest.mark.parametrize("command", ["fit", "test"])
def test_truth__of_which_nothing_counts_is_one_line(
    tmp_path, tiny_weights, capsys, command
):
    root = write_rgbd(tmp_path / "far", 6)
    for path in (root / "depths/a").iterdir():
        depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(depth > 0, depth + 20_000, 0).astype(np.uint16))
    config = str(write_config(tmp_path, tiny_weights, folder_data(root)))
    with pytest.raises(SystemExit) as stopped:
        main([command, "--config", config])
    assert stopped.value.code == 1
    assert "has a pixel that counts in protocol full" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.ckpt"))
    assert not list(tmp_path.rglob("test_*.json"))


def test_training__truth_of_which_nothing_counts_is_one_line(
    tmp_path, tiny_weights, capsys
):
    far, near = (write_rgbd(tmp_path / name, 4) for name in ("far", "near"))
    for path in (far / "depths/a").iterdir():
        depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(depth > 0, depth + 20_000, 0).astype(np.uint16))
    data = folder_data(far, val_root=str(near))
    config = str(write_config(tmp_path, tiny_weights, data))
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", config])
    assert stopped.value.code == 1
    assert "no training frame had a pixel to learn from" in capsys.readouterr().err


def test_test__of_a_part_does_not_stand_in_for_the_whole(trained, capsys):
    whole = ["test", "--config", trained, "--ckpt_path", LAST]
    main(whole)
    expected = score()
    for part in ("--trainer.fast_dev_run", "--trainer.limit_test_batches"):
        main([*whole, part, "1"])
        assert "of 3 images were scored; this is no result" in capsys.readouterr().out
        assert score() == expected
    with pytest.raises(SystemExit):
        main([*whole, "--trainer.limit_test_batches", "0"])
    assert "leaves nothing to score" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--trainer.limit_val_batches", "0"], "nothing was validated"),
        (["--trainer.enable_checkpointing", "false"], "run folder: 'r s"),
    ],
)
def test_fit__without_scores_or_checkpoints_ends_with_its_places(
    tmp_path, tiny_weights, capsys, more, said
):
    config = str(write_config(tmp_path, tiny_weights))
    place = ["--trainer.default_root_dir", "r s", "--trainer.max_epochs", "1"]
    main(["fit", "--config", config, *place, *more])
    printed = capsys.readouterr().out
    assert said in printed or said.replace("'", "") in printed
    assert Path("r s/runs/small/version_0/config.yaml").is_file()
    if "--trainer.enable_checkpointing" not in more:
        assert "--model 'r s/runs/small" in printed
    else:
        assert not list(Path().rglob("*.ckpt"))


def test_fit__from_weights_alone_is_refused_before_records_change(
    tmp_path, tiny_weights, capsys
):
    config = str(write_config(tmp_path, tiny_weights))
    bare = ["--checkpoint.save_weights_only", "true", "--recovery.minutes", "0"]
    main(["fit", "--config", config, *bare])
    with pytest.raises(SystemExit):
        main(["fit", "--config", config, "--ckpt_path", "last", *bare])
    assert "holds weights alone (save_weights_only)" in capsys.readouterr().err
    assert not list(Path("runs/small/version_0").glob("config_1.yaml"))


def test_optimizer__of_lightnings_own_option_is_no_option(
    tmp_path, tiny_weights, capsys
):
    """It would overrule groups, rates and schedule, and the record would not say so."""
    config = str(write_config(tmp_path, tiny_weights))
    with pytest.raises(SystemExit):
        main(["fit", "--config", config, "--optimizer", "Adam"])
    assert "optimizer" in capsys.readouterr().err
