"""train.py as a person types it: in process, in a killed process, in two processes."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from app.training.command import main
from models.artefacts.checkpoint import read_checkpoint

REPO = Path(__file__).parents[3]
LAVA = {"class_path": "models.adapters.Lava", "init_args": {"rank": 2}}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write_config(folder: Path, weights: Path | None, data=None, adapter=LAVA) -> Path:
    """A whole recipe on a few small frames; YAML reads JSON."""
    synthetic = {
        "class_path": "datamodules.SyntheticDataModule",
        "init_args": {
            "domain": "streets",
            "n_train": 8,
            "n_val": 5,
            "n_test": 3,
            "image_size": [28, 42],
            "batch_size": 2,
        },
    }
    config = {
        "seed_everything": 0,
        "model": {
            "class_path": "models.DepthAnythingModule",
            "init_args": {
                "size": "tiny",
                "weights": None if weights is None else str(weights),
                "adapter": adapter,
            },
        },
        "data": data or synthetic,
        "trainer": {
            "max_epochs": 2,
            "accelerator": "cpu",
            "devices": 1,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        },
    }
    path = folder / "small.yaml"
    path.write_text(json.dumps(config))
    return path


def folder_data(root: Path, **options):
    given = {"root": str(root), "depth_scale": 1000, "max_depth": 10}
    given |= {"image_size": [28, 42], "batch_size": 2, "val_fraction": 0.34}
    given |= {"num_workers": 0, **options}
    return {"class_path": "datamodules.FolderDataModule", "init_args": given}


def run(*args: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(REPO / "train.py"), *args],
        env=os.environ | {"OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_fit__leaves_the_whole_run_folder(tmp_path, tiny_weights, capsys):
    config = write_config(tmp_path, tiny_weights)
    main(["fit", "--config", str(config)])
    folder = tmp_path / "runs/small/version_0"
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {
        "config.yaml",
        "metrics.csv",
        "summary.json",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "previews/step_000000.png",
        "previews/step_000008.png",
    } <= found
    assert any(name.startswith("events.out.tfevents") for name in found)

    summary = json.loads((folder / "summary.json").read_text())
    names = {"delta1", "delta2", "delta3", "abs_rel", "sq_rel", "rmse", "rmse_log"}
    for row in ("before", "before_median_scaled", "after"):
        assert set(summary[row]) == names | {"log10", "silog"}
    assert summary["protocol"] == "full"
    assert summary["n_images"] == 5
    record, _ = read_checkpoint(folder / "checkpoints/last.ckpt")
    assert record.scores["n_images"] == 5
    assert record.scores["metrics"] == pytest.approx(summary["after"])
    assert 0 < summary["trainable_params"] < 0.05 * summary["total_params"]
    assert summary["before"] != summary["after"]

    printed = capsys.readouterr().out
    assert "before, median-scaled" in printed
    assert "--model runs/small/version_0/checkpoints/best.ckpt" in printed
    image = cv2.imread(str(folder / "previews/step_000008.png"))
    assert image.shape == (4 * 28, 4 * 42, 3)


def test_validate_and_test__score_the_checkpoint_again(tmp_path, tiny_weights, capsys):
    config = str(write_config(tmp_path, tiny_weights))
    main(["fit", "--config", config])
    summary = json.loads((tmp_path / "runs/small/version_0/summary.json").read_text())
    ckpt = "runs/small/version_0/checkpoints/last.ckpt"
    capsys.readouterr()
    main(["test", "--config", config, "--ckpt_path", ckpt])
    printed = capsys.readouterr().out
    assert "protocol full, 3 images" in printed
    results = json.loads(Path(ckpt).with_name("test_full.json").read_text())
    assert results["n_images"] == 3
    assert results["adapter"]["method"] == "Lava"
    assert results["total_params"] == summary["total_params"]
    assert set(results["metrics"]) == set(summary["after"])


def test_sigkill__resumed_run_ends_with_equal_metrics(tmp_path, tiny_weights):
    """Killed for real, between two checkpoints, and resumed by a new process."""
    config = str(write_config(tmp_path, tiny_weights))
    more = ("--trainer.max_epochs", "6")
    main(["fit", "--config", config, *more, "--trainer.default_root_dir", "whole"])
    expected = json.loads(Path("whole/runs/small/version_0/summary.json").read_text())

    last = Path("cut/runs/small/version_0/checkpoints/last.ckpt")
    cut = ("--trainer.default_root_dir", "cut")
    killed = run("fit", "--config", config, *more, *cut)
    deadline = time.monotonic() + 120
    while not last.exists():
        assert killed.poll() is None, killed.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not last.parents[1].joinpath("summary.json").exists()

    main(["fit", "--config", config, *more, *cut, "--ckpt_path", str(last)])
    summary = json.loads(last.parents[1].joinpath("summary.json").read_text())
    for row in ("before", "before_median_scaled", "after"):
        # The killed process ran on one thread, this one on more: sums differ by
        # float32 rounding, which training amplifies a little.
        assert summary[row] == pytest.approx(expected[row], rel=1e-3), row
    assert list(last.parents[1].glob("metrics*.csv"))


def test_ddp__two_processes_score_like_one(tmp_path, tiny_weights):
    """5 frames on 2 processes: a padding sampler would count one of them twice."""
    config = str(write_config(tmp_path, tiny_weights))
    rows = {}
    for devices in ("1", "2"):
        root = f"d{devices}"
        strategy = ("--trainer.strategy", "ddp") if devices == "2" else ()
        # A learning rate of nearly zero: training differs between the two, scores of
        # one and the same network must not.
        still = "--model.init_args.optimisation."
        command = [
            "fit",
            *("--config", config, "--trainer.devices", devices, *strategy),
            *("--trainer.default_root_dir", root, "--trainer.max_epochs", "1"),
            *(f"{still}adapter_lr", "1e-30", f"{still}head_lr", "1e-30"),
        ]
        if devices == "1":
            main(command)
        else:
            process = run(*command)
            output = process.communicate(timeout=240)[0]
            assert process.returncode == 0, output
        path = Path(root, "runs/small/version_0/summary.json")
        rows[devices] = json.loads(path.read_text())
    assert rows["1"]["n_images"] == rows["2"]["n_images"] == 5
    for row in ("before", "before_median_scaled", "after"):
        assert rows["2"][row] == pytest.approx(rows["1"][row], rel=1e-6), row


def mistake(name, tmp_path, rgbd, tiny_weights):
    """Arguments of a command with one mistake in them."""
    good = str(write_config(tmp_path, tiny_weights))
    (tmp_path / "empty").mkdir()
    if name == "truncated image":
        path = rgbd / "images/a/0.jpg"
        path.write_bytes(path.read_bytes()[:200])
    data = {
        "missing root": folder_data(tmp_path / "nowhere"),
        "negative depth": folder_data(rgbd / "n.csv"),
        "wrong unit": folder_data(rgbd, depth_scale=1),
        "truncated image": folder_data(rgbd, num_workers=2),
        "empty folder": folder_data(tmp_path / "empty"),
    }
    if name == "negative depth":
        np.save(rgbd / "n.npy", np.full((40, 56), -1, np.float32))
        lines = ["image,depth"] + ["images/a/0.jpg,n.npy"] * 4
        (rgbd / "n.csv").write_text("\n".join(lines))
    if name in data:
        return [
            "fit",
            "--config",
            str(write_config(tmp_path, tiny_weights, data[name])),
        ]
    adapter = "--model.init_args.adapter.init_args."
    extra = {
        "rank 0": (f"{adapter}rank", "0"),
        "rank too large": (f"{adapter}rank", "500"),
        "targets match nothing": (f"{adapter}targets", '["attention"]'),
        "other size": ("--model.init_args.size", "S"),
        "missing weights": ("--model.init_args.weights", "nowhere.pth"),
        "missing checkpoint": ("--ckpt_path", "nowhere.ckpt"),
        "config typo": ("--model.init_args.adaptor", "null"),
        "image size": ("--data.init_args.image_size", "[30, 42]"),
        "no number": ("--data.init_args.n_train", "x"),
        "no such word": ("--data.init_args.augment.resize", "x"),
        "one of several": ("--trainer.precision", "fp16"),
        "learning rate": ("--model.init_args.optimisation.head_lr", "-1"),
        "monitor": ("--checkpoint.monitor", "abs_rel"),
        "worst": ("--checkpoint.mode", "max", "--checkpoint.monitor", "val/rmse"),
    }[name]
    return ["fit", "--config", good, *extra]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing root", "data root .*nowhere does not exist"),
        ("empty folder", "has no folders; a data root has a folder of pictures"),
        ("negative depth", r"n\.npy has 2240 NaN, infinite or negative values"),
        ("wrong unit", "depth_scale is stored units per metre"),
        ("truncated image", r"0\.jpg is cut off"),
        ("rank 0", "rank 0 must be at least 1"),
        ("rank too large", r"depth_head.*rank 500 is larger than|qkv: rank 500"),
        ("targets match nothing", "'attention' matches none"),
        ("other size", "holds a network of size 'tiny', not 'S'"),
        ("missing weights", "no such file or folder"),
        ("missing checkpoint", r"nowhere\.ckpt"),
        ("config typo", "adaptor"),
        ("image size", "multiples of 14"),
        ("no number", r"data\S*n_train is 'x', but must be int"),
        ("no such word", r"resize is 'x', but must be 'full', 'lower_bound'"),
        ("one of several", "precision is 'fp16', but must be int or .*'16-mixed'"),
        ("learning rate", "must be finite, and not negative"),
        ("monitor", "'abs_rel', which no validation gives; .* val/abs_rel, val/delta1"),
        ("worst", "takes the max of val/rmse, which is its worst; give mode as min"),
    ],
)
def test_mistake__is_one_clear_line(
    tmp_path, rgbd, tiny_weights, capsys, name, message
):
    args = mistake(name, tmp_path, rgbd, tiny_weights)
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code not in (0, None)
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    lines = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, printed
    import re

    assert re.search(message, lines[0]), lines[0]


def test_monitor__of_which_more_is_better_keeps_the_most(tmp_path, tiny_weights):
    config = str(write_config(tmp_path, tiny_weights))
    main(["fit", "--config", config, "--checkpoint.monitor", "val/delta1"])
    best = torch.load("runs/small/version_0/checkpoints/best.ckpt", weights_only=True)
    (kept,) = (s for n, s in best["callbacks"].items() if "'val/delta1'" in n)
    with Path("runs/small/version_0/metrics.csv").open() as file:
        found = [row["val/delta1"] for row in csv.DictReader(file)]
    assert float(kept["best_model_score"]) == pytest.approx(
        max(float(value) for value in found if value)
    )


def test_no_permission__is_one_clear_line(tmp_path, tiny_weights, capsys, monkeypatch):
    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    config = write_config(tmp_path, tiny_weights)
    monkeypatch.setattr("app.training.results.Path.mkdir", refuse)
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(config)])
    assert "Permission denied" in capsys.readouterr().err


def test_checkpoint_of_another_base__is_one_clear_line(tmp_path, tiny_weights, capsys):
    from models.artefacts.merged import save_network
    from models.networks import DepthNetwork, NetworkSpec

    main(["fit", "--config", str(write_config(tmp_path, tiny_weights))])
    save_network(
        DepthNetwork(NetworkSpec("tiny", "v2", "metric", 10.0)), tmp_path / "o"
    )
    other = str(write_config(tmp_path, tmp_path / "o"))
    ckpt = "runs/small/version_0/checkpoints/last.ckpt"
    with pytest.raises(SystemExit):
        main(["fit", "--config", other, "--ckpt_path", ckpt])
    assert "give the same base" in capsys.readouterr().err
