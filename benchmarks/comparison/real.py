"""Real frames, apart: adapt to all data sets but one, score on that one."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.comparison.tasks import real_task, save_frames
from datamodules.batch import Frames
from datamodules.files.depths.reading import Unknown
from datamodules.files.pairs import Pair, PairFrames
from datamodules.folder import find_pairs
from datamodules.inputs import resize_image

UNKNOWN: Unknown = "ignore"
MILLIMETRES = 1000.0


def data_sets(table: Path) -> dict[str, list[Pair]]:
    """The frames of a CSV by data set: a file's name up to its first underscore."""
    found: dict[str, list[Pair]] = {}
    for pair in find_pairs(table, MILLIMETRES):
        found.setdefault(pair.image.stem.split("_")[0], []).append(pair)
    if len(found) < 2:
        raise SystemExit(
            f"{table} has frames of {', '.join(found)} only; to leave one data set "
            "out, there must be two (a data set is what a file's name has before its "
            "first underscore)"
        )
    return found


def store_real(folder: Path, table: Path, size: tuple[int, int]) -> dict[str, int]:
    """Write the frames of one task per data set; task name to training frames.

    Frames are brought to `size` (rows, cols), their truth by nearest neighbour.
    """
    found = data_sets(table)
    lengths = {}
    for name, own in found.items():
        others = [
            pair for other, some in found.items() if other != name for pair in some
        ]
        task = real_task(name)
        for split, pairs in (("train", others), ("val", others), ("test", own)):
            frames = PairFrames(pairs, UNKNOWN)
            save_frames(folder, f"{task.name}_{split}", *as_arrays(frames, size))
        lengths[task.name] = len(others)
    return lengths


def as_arrays(
    frames: Frames, size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Images (n, rows, cols, 3) and depths (n, rows, cols) of all frames."""
    images, depths = [], []
    for i in range(len(frames)):
        frame = frames[i]
        images.append(resize_image(frame.image, size))
        depths.append(
            cv2.resize(frame.depth, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        )
    return np.stack(images), np.stack(depths)
