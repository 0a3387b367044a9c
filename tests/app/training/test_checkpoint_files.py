"""Checkpoints and metrics: killed in the middle of writing, the old ones stay."""

import json
import tempfile
from pathlib import Path

import pytest
import torch

from app.training.checkpoint_files import WholeCheckpoints
from app.training.command import main
from app.training.metrics_file import MetricsFile
from datamodules.errors import DataError

DATA = {"domain": "streets", "n_train": 2, "n_val": 2, "n_test": 1, "batch_size": 2}


def test_fit__writes_checkpoints_beside_themselves(tmp_path, monkeypatch):
    """What goes through a temporary folder elsewhere is copied, and may be cut off."""
    monkeypatch.chdir(tmp_path)
    real, written = WholeCheckpoints.save_checkpoint, set()

    def spy(self, checkpoint, path, storage_options=None):
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(tempfile, "tempdir", "/nowhere")
            real(self, checkpoint, path, storage_options)
        written.add(Path(path).name)
        assert not list(Path(path).parent.glob(".*"))

    monkeypatch.setattr(WholeCheckpoints, "save_checkpoint", spy)
    model = {"size": "tiny", "weights": "tiny-rooms"}
    config = {
        "seed_everything": 0,
        "model": {"class_path": "models.DepthAnythingModule", "init_args": model},
        "data": {
            "class_path": "datamodules.SyntheticDataModule",
            "init_args": {**DATA, "image_size": [28, 42], "num_workers": 0},
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "devices": 1},
    }
    Path("small.yaml").write_text(json.dumps(config))
    main(["fit", "--config", "small.yaml", "--trainer.enable_progress_bar", "false"])
    assert written == {"best.ckpt", "last.ckpt"}
    rows = Path("runs/small/version_0/metrics.csv").read_text().splitlines()
    assert "val/abs_rel" in rows[0]


def test_disk_full__keeps_the_last_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "checkpoints/last.ckpt"
    WholeCheckpoints().save_checkpoint({"step": 1}, path)

    def full(self, content):
        self.open("wb").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match=r"last.ckpt cannot be written \(No space"):
        WholeCheckpoints().save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_metrics__a_new_column_does_not_empty_the_file(tmp_path, monkeypatch):
    logger = MetricsFile(tmp_path, "run", version=0)
    logger.log_metrics({"a": 1.0}, step=0)
    logger.save()
    path = Path(logger.log_dir) / "metrics.csv"
    before = path.read_text()
    assert before.splitlines() == ["a,step", "1.0,0"]
    real, seen = Path.replace, []

    def spy(self, target):
        # Were it killed here, this would be left.
        seen.append(path.read_text())
        return real(self, target)

    monkeypatch.setattr(Path, "replace", spy)
    logger.log_metrics({"b": 2.0}, step=1)
    logger.save()
    assert seen == [before]
    assert path.read_text().splitlines() == ["a,b,step", "1.0,,0", ",2.0,1"]
