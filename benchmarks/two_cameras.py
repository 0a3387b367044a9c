"""What a canonical camera is worth where frames come from two: through train.py.

    python -m benchmarks.two_cameras --out runs/two_cameras   # about 20 minutes

Ray-cast rooms of two cameras, half with a horizontal field of view of 45-55 degrees,
half with 85-95, are written as PNGs and a CSV with `fx`. The packaged network is
adapted to them by LAVA of rank 8 with `train.py fit` on `configs/folder.yaml`, as it is
and with `--model.camera canonical`, and scored by `train.py test` on rooms of the same
cameras and of three others that it never saw. Every seed has rooms of its own. What is
printed is delta1 without median scaling, the mean over the seeds, and Student's 95 %
interval of it and of the paired difference.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.comparison.reporting.markdown import plus_minus
from benchmarks.comparison.reporting.statistics import estimate
from benchmarks.stopwatch import machine
from datamodules.raycasting.scenes import ROOM_CAMERA
from datamodules.synthetic import SyntheticFrames

ROOT = Path(__file__).parents[1]
SIZE = (126, 168)
SEEN = {"45-55": (45, 55), "85-95": (85, 95)}
OTHERS = {"66-72": (66, 72), "108-114": (108, 114), "28-34": (28, 34)}
WORDS = {
    **{"45-55": "seen", "85-95": "seen", "66-72": "between"},
    **{"108-114": "wider", "28-34": "narrower"},
}
STEPS, BATCH = 150, 8
MODES = {
    "any": [],
    # The shortest focal length of the two: 84 px / tan(95 / 2 degrees).
    "canonical": ["--model.camera", "canonical", "--model.canonical_focal_px", "77"],
}


def write_frames(
    folder: Path, name: str, cameras: list[tuple[int, int]], frames: int, seed: int
) -> Path:
    """The CSV of rooms that were taken by some cameras in turn."""
    table = folder / f"{name}.csv"
    (folder / name).mkdir(parents=True, exist_ok=True)
    rows = []
    sources = [
        SyntheticFrames(
            "rooms", "test", frames, SIZE, seed, replace(ROOM_CAMERA, fov_deg=fov)
        )
        for fov in cameras
    ]
    for i in range(frames):
        frame = sources[i % len(sources)][i]
        assert frame.intrinsics is not None
        image, depth = f"{name}/{i}.png", f"{name}/{i}.depth.png"
        cv2.imwrite(str(folder / image), cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
        cv2.imwrite(str(folder / depth), (frame.depth * 1000).astype(np.uint16))
        rows.append([image, depth, *frame.intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]]])
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["image", "depth", "fx", "fy", "cx", "cy"], *rows])
    return table


def train(command: str, *options: str) -> None:
    """Run train.py, which says nothing but its errors."""
    given = [sys.executable, str(ROOT / "train.py"), command, *options]
    done = subprocess.run(given, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr.strip().splitlines()[-1])


def scores(
    out: Path, mode: str, seed: int, frames: int, tests: int
) -> dict[str, float]:
    """delta1 of each camera's rooms after training."""
    data, run = out / f"data_{seed}", out / f"{mode}_{seed}"
    results = run / "delta1.json"
    if results.is_file():
        found: dict[str, float] = json.loads(results.read_text())
        return found
    tables = {
        name: write_frames(data, name, [fov], tests, 2000 + seed)
        for name, fov in {**SEEN, **OTHERS}.items()
    }
    train_table = write_frames(data, "train", list(SEEN.values()), frames, 1000 + seed)
    val_table = write_frames(data, "val", list(SEEN.values()), 4, 3000 + seed)
    common = [
        *("--config", str(ROOT / "configs/folder.yaml")),
        *("--model.size", "tiny", "--model.weights", "tiny-rooms"),
        *("--data.root", str(train_table), "--data.depth_scale", "1000"),
        *("--data.max_depth", "10", "--data.image_size", str(list(SIZE))),
        *("--data.batch_size", str(BATCH), "--data.num_workers", "0"),
        *("--trainer.default_root_dir", str(run), "--trainer.accelerator", "cpu"),
        *MODES[mode],
    ]
    rates = "--model.optimisation."
    train(
        "fit",
        *common,
        *("--data.val_root", str(val_table), "--seed_everything", str(seed)),
        *(f"{rates}adapter_lr", "3e-3", f"{rates}head_lr", "1e-3"),
        *("--data.augment.scale", "[1.0, 1.0]", "--trainer.max_epochs", "-1"),
        *("--trainer.max_steps", str(STEPS), "--trainer.enable_progress_bar", "false"),
    )
    last = next(run.glob("runs/folder/version_*/checkpoints/last.ckpt"))
    found = {}
    for name, table in tables.items():
        train("test", *common, "--data.val_root", str(table), "--ckpt_path", str(last))
        content = json.loads(last.with_name("test_full.json").read_text())
        assert content["n_images"] == tests
        found[name] = content["metrics"]["delta1"]
    results.write_text(json.dumps(found))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.two_cameras",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("runs/two_cameras"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=192, help="of training")
    parser.add_argument("--tests", type=int, default=64, help="frames of each camera")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    for seed in tqdm(range(asked.seeds), "seeds", disable=None):
        for mode, runs in found.items():
            runs.append(scores(asked.out, mode, seed, asked.frames, asked.tests))
    about = machine(on_cuda=False)
    print(f"{about['date']}, {about['cpu']}, torch {about['torch']}\n")
    print("| horizontal field of view | any | canonical | gain |\n|---|---|---|---|")
    for name, word in WORDS.items():
        any_, canonical = (np.array([r[name] for r in found[mode]]) for mode in MODES)
        cells = [
            plus_minus(estimate(values.tolist()))
            for values in (any_, canonical, canonical - any_)
        ]
        print(f"| {name} ({word}) | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
