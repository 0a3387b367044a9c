"""From a table of several cameras, through training, to a point cloud in metres."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from app.prediction.command import main as predict
from app.training.command import main as train
from models.artefacts.merged import save_network
from tests.conftest import random_tiny

CELL_M, CANONICAL_PX, CANONICAL_M = 0.25, 60.0, 2.0
FOCALS_PX = (40.0, 60.0, 90.0)
ROWS, COLS, BORDER = 56, 84, 14
BEST = "runs/r/version_0/checkpoints/last.ckpt"


def wall(focal_px: float) -> tuple[np.ndarray, float]:
    """A chequered wall across the view, and the distance at which it looks as all do.

    A cell is `CELL_M` wide, whatever the camera: in pixels CELL_M focal / distance.
    """
    distance_m = CANONICAL_M * focal_px / CANONICAL_PX
    x, y = (np.arange(n) - (n - 1) / 2 for n in (COLS, ROWS))
    cells = [np.floor(axis * distance_m / focal_px / CELL_M) for axis in (x, y)]
    light = (cells[0][None] + cells[1][:, None]) % 2
    return np.repeat((60 + 120 * light[..., None]).astype(np.uint8), 3, 2), distance_m


@pytest.fixture
def table(tmp_path, monkeypatch) -> Path:
    """Four frames of each of three cameras, whose pictures are all the same."""
    monkeypatch.chdir(tmp_path)
    rows = [["image", "depth", "fx"]]
    for focal_px in FOCALS_PX:
        image, distance_m = wall(focal_px)
        for i in range(4):
            name = f"{focal_px:g}_{i}"
            cv2.imwrite(f"{name}.png", image)
            np.save(f"{name}.npy", np.full((ROWS, COLS), distance_m, np.float32))
            rows.append([f"{name}.png", f"{name}.npy", f"{focal_px:g}"])
    with Path("frames.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return Path("frames.csv")


def fit(table: Path) -> None:
    content = {
        "seed_everything": 0,
        "model": {
            "class_path": "models.DepthAnythingModule",
            "init_args": {
                **{"size": "tiny", "weights": "base", "camera": "canonical"},
                # The pictures are all one: the last layer has enough to learn.
                "adapter": {
                    "class_path": "models.adapters.TrainFully",
                    "init_args": {"train_fully": [r"output_conv2\.2$"]},
                },
                "canonical_focal_px": CANONICAL_PX,
                # Not where training has to end.
                "start_depth": 1.2 * CANONICAL_M,
                "optimisation": {"head_lr": 2e-2},
            },
        },
        "data": {
            "class_path": "datamodules.FolderDataModule",
            "init_args": {
                **{"root": str(table), "val_root": str(table), "depth_scale": 1},
                **{"max_depth": 10, "image_size": [28, 42], "batch_size": 12},
                "num_workers": 0,
            },
        },
        "trainer": {
            **{"max_epochs": 80, "accelerator": "cpu", "devices": 1},
            "check_val_every_n_epoch": 80,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        },
    }
    save_network(random_tiny("relative", None), Path("base"))
    Path("r.yaml").write_text(json.dumps(content))
    train(["fit", "--config", "r.yaml"])


def points(picture: str, focal_px: float) -> np.ndarray:
    """(N, 3) metres of a picture's cloud."""
    fixed = ["--accelerator", "cpu", "--devices", "1", "--workers", "0", "--overwrite"]
    given = ["--model", BEST, "--formats", "ply", "--fx", str(focal_px)]
    predict([picture, *given, *fixed])
    body = Path(f"predictions/{picture}.ply").read_bytes().partition(b"end_header\n")[2]
    return np.frombuffer(body, np.dtype([("p", "<f4", 3), ("c", "u1", 3)]))["p"]


def test_wall__of_three_cameras_is_as_far_and_as_wide_as_it_is(table):
    fit(table)
    for focal_px in FOCALS_PX:
        _, distance_m = wall(focal_px)
        cloud = points(f"{focal_px:g}_0.png", focal_px).reshape(ROWS, COLS, 3)
        # Convolutions pad, so that a few steps leave the borders a little uneven.
        cloud = cloud[BORDER:-BORDER, BORDER:-BORDER]
        assert cloud[..., 2].mean() == pytest.approx(distance_m, rel=1e-2)
        width_m = cloud[:, -1, 0] - cloud[:, 0, 0]
        expected_m = (COLS - 1 - 2 * BORDER) / focal_px * distance_m
        assert width_m.mean() == pytest.approx(expected_m, rel=1e-2)
        # Another camera's distance is off by a third and more.
        np.testing.assert_allclose(cloud[..., 2], distance_m, rtol=6e-2)
