"""Photographs with depth of two places: adapt to some scenes, score on others."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.comparison.real import as_arrays
from benchmarks.comparison.tasks import PHOTOS, Task, save_frames
from datamodules.files.pairs import Pair, PairFrames

HELD_OUT_SCENES = ("piv_office", "uoc_demo")
HELD_OUT_PART = 0.2
"""Of a place with one scene: its last frames, in their order."""


def store_photographs(
    folder: Path, photos: Path, image_size: tuple[int, int]
) -> dict[str, int]:
    """Write the frames of both places; task name to training frames.

    Args:
        folder: Where to.
        photos: With `index.json`, as in `benchmarks.zero_shot`. Frames of its split
            `train` are trained on, but for those that rates are chosen by.
        image_size: (rows, cols) of a task that has none of its own.
    """
    index = json.loads((photos / "index.json").read_text())
    lengths = {}
    for task in PHOTOS:
        own = [f for f in index if f["place"] == task.name.removeprefix("photos_")]
        splits = {"test": [f for f in own if f["split"] == "test"]}
        rest = [f for f in own if f["split"] == "train"]
        splits["train"], splits["val"] = held_out(rest)
        for split, frames in splits.items():
            _store(folder, task, split, frames, photos, image_size)
        lengths[task.name] = len(splits["train"])
    return lengths


def held_out(frames: list[Any]) -> tuple[list[Any], list[Any]]:
    """Frames to train on, and those that rates are chosen by."""
    val = [frame for frame in frames if frame["scene"] in HELD_OUT_SCENES]
    if not val:
        first = round(len(frames) * (1 - HELD_OUT_PART))
        return frames[:first], frames[first:]
    return [frame for frame in frames if frame not in val], val


def _store(
    folder: Path,
    task: Task,
    split: str,
    frames: Iterable[Any],
    photos: Path,
    image_size: tuple[int, int],
) -> None:
    pairs = [
        Pair(photos / f["rgb"], photos / f["depth"], float(f["depth_scale"]))
        for f in frames
    ]
    arrays = as_arrays(PairFrames(pairs, "ignore"), task.image_size or image_size)
    save_frames(folder, f"{task.name}_{split}", *arrays)
