"""How fast frames become batches, beside Depth Anything V2's own transform.

    python -m benchmarks.data_loading --root DATA --json out.json

DATA holds `nyu/` (lists and folders), `mat/` (the labelled set) and `kitti/`, as the
data modules take them; those that are missing are left out. Without `--root`, frames of
the official sizes are generated into a temporary folder: smooth pictures with noise, so
that decoding costs about what photographs cost.

Per data set, one process and one thread, interleaved, medians over the rounds:

    decode: reading and decoding image and depth, common to both.
    ours: our training transform (resize, augment, normalise) on decoded frames.
    official: that of Depth Anything V2's `metric_depth/dataset`, re-derived: pixels to
        float, `Resize(lower_bound, multiple of 14, cubic)` of image, depth (nearest),
        normalise, transpose, random crop, flip. Its Resize keeps the frame's shape;
        ours does the same here (`resize: lower_bound`), to the same output size.
    images/s: 1 / (decode + transform), per worker.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.io import savemat

from benchmarks.pictures import texture
from benchmarks.stopwatch import machine, write_json
from datamodules import KITTIDataModule, NYUDataModule
from datamodules.batch import IMAGENET_MEAN, IMAGENET_STD, Frame, Frames
from datamodules.protocols import full
from datamodules.sizes import lower_bound
from datamodules.transforms import Augment, TrainTransform

SIZES = {"nyu": (518, 518), "mat": (518, 518), "kitti": (350, 1204)}
"""Network input (rows, cols) of each data set, cropped from the resized frame."""
FRAMES = 12


@dataclass(frozen=True)
class Row:
    """Milliseconds per frame, medians."""

    dataset: str
    decode_ms: float
    resize_ms: float
    augment_ms: float
    ours_ms: float
    official_ms: float
    ours_per_s: float
    official_per_s: float
    ratio: float
    """Of images/s, decoding included: median over rounds."""
    transform_ratio: float
    """Likewise without decoding."""


def official(
    frame: Frame, size: tuple[int, int], rng: random.Random
) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth Anything V2's training transform, from its rules.

    `metric_depth/dataset/transform.py` and `hypersim.py` of the repository at a561b84.
    """
    image: NDArray[Any] = frame.image / 255.0
    depth: NDArray[Any] = frame.depth
    rows, cols = lower_bound(depth.shape, size, 14)
    image = cv2.resize(image, (cols, rows), interpolation=cv2.INTER_CUBIC)
    depth = cv2.resize(depth, (cols, rows), interpolation=cv2.INTER_NEAREST)
    image = (image - IMAGENET_MEAN) / IMAGENET_STD
    image = np.ascontiguousarray(np.transpose(image, (2, 0, 1))).astype(np.float32)
    depth = np.ascontiguousarray(depth.astype(np.float32))
    top, left = rng.randint(0, rows - size[0]), rng.randint(0, cols - size[1])
    part = (slice(top, top + size[0]), slice(left, left + size[1]))
    pixels = torch.from_numpy(image[:, *part])
    truth = torch.from_numpy(depth[part])
    return (pixels.flip(-1), truth.flip(-1)) if rng.random() < 0.5 else (pixels, truth)


def measure(name: str, frames: Frames, rounds: int) -> Row:
    """Time every stage of one data set."""
    size = SIZES[name]
    count = min(len(frames), FRAMES)
    decoded = [frames[i] for i in range(count)]
    plain = Augment(resize="lower_bound", flip=0, colour=0)
    whole = TrainTransform(size, full(80), Augment(resize="lower_bound"), 0)
    only_resize = TrainTransform(size, full(80), plain, 0)
    rng = random.Random(0)
    stages: dict[str, Callable[[int], object]] = {
        "decode": lambda i: frames[i],
        "resize": lambda i: only_resize(decoded[i], 0, i),
        "ours": lambda i: whole(decoded[i], 0, i),
        "official": lambda i: official(decoded[i], size, rng),
    }
    times: dict[str, list[float]] = {stage: [] for stage in stages}
    order = list(stages)
    for number in range(rounds + 1):
        random.Random(number).shuffle(order)
        for stage in order:
            start = time.perf_counter()
            for i in range(count):
                stages[stage](i)
            if number:  # the first round warms up
                times[stage].append(1e3 * (time.perf_counter() - start) / count)
    middle = {stage: statistics.median(values) for stage, values in times.items()}
    compared = [times[stage] for stage in ("decode", "ours", "official")]
    rounds_of = list(zip(*compared, strict=True))
    return Row(
        dataset=name,
        decode_ms=middle["decode"],
        resize_ms=middle["resize"],
        augment_ms=middle["ours"] - middle["resize"],
        ours_ms=middle["ours"],
        official_ms=middle["official"],
        ours_per_s=1e3 / (middle["decode"] + middle["ours"]),
        official_per_s=1e3 / (middle["decode"] + middle["official"]),
        ratio=statistics.median((d + t) / (d + o) for d, o, t in rounds_of),
        transform_ratio=statistics.median(t / o for _, o, t in rounds_of),
    )


def depth_map(size: tuple[int, int], far: float, rng: np.random.Generator) -> Frame:
    """A frame with smooth depth up to `far` metres and holes."""
    small = rng.uniform(1, far, (6, 8)).astype(np.float32)
    depth = cv2.resize(small, size[::-1]).astype(np.float32)
    depth[rng.random(size) < 0.2] = 0
    return Frame(texture(size, rng), depth, "")


def generate(root: Path) -> None:
    """Frames of the official sizes and formats."""
    rng = np.random.default_rng(0)
    nyu = [depth_map((480, 640), 9, rng) for _ in range(FRAMES)]
    kitti = [depth_map((375, 1242), 70, rng) for _ in range(FRAMES)]
    lines: dict[str, list[str]] = {"nyu": [], "kitti": []}
    for i, (indoor, outdoor) in enumerate(zip(nyu, kitti, strict=True)):
        names = {
            "nyu": (f"scene/rgb_{i}.jpg", f"scene/depth_{i}.png", indoor, 1000),
            "kitti": (f"raw/{i}.png", f"drive_{i}/{i}.png", outdoor, 256),
        }
        for name, (image, depth, frame, scale) in names.items():
            below = "data_depth_annotated/train" if name == "kitti" else ""
            for path in (root / name / image, root / name / below / depth):
                path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / name / image), frame.image[..., ::-1])
            stored = (frame.depth * scale).astype(np.uint16)
            cv2.imwrite(str(root / name / below / depth), stored)
            lines[name].append(f"{image} {depth} 1.0\n")
    for split in ("train", "test"):
        (root / f"nyu/nyudepthv2_{split}_files_with_gt.txt").write_text(
            "".join(lines["nyu"])
        )
        (root / f"kitti/kitti_eigen_{split}_files_with_gt.txt").write_text(
            "".join(lines["kitti"])
        )
    (root / "mat").mkdir()
    with h5py.File(root / "mat/nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = np.stack([f.image.transpose(2, 1, 0) for f in nyu])
        for key in ("depths", "rawDepths"):
            file[key] = np.stack([f.depth.T for f in nyu])
    numbers = np.arange(1, FRAMES + 1, dtype=np.uint16)[:, None]
    savemat(root / "mat/splits.mat", {"trainNdxs": numbers, "testNdxs": numbers})


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.data_loading",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", type=Path, help="real data; generated if left out")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write everything here")
    options = parser.parse_args()
    # One worker of a loader: it has one thread.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    where = machine("albumentations", "opencv-python-headless", on_cuda=False)
    print(json.dumps(where, indent=1))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = options.root or Path(folder)
        if options.root is None:
            generate(root)
        kinds = {"nyu": NYUDataModule, "mat": NYUDataModule, "kitti": KITTIDataModule}
        for name, kind in kinds.items():
            if (root / name).exists():
                frames = kind(str(root / name)).frames("train")
                rows.append(measure(name, frames, options.rounds))
                print(rows[-1])
    if options.json is not None:
        write_json(
            options.json, {"machine": where, "rows": [asdict(row) for row in rows]}
        )


if __name__ == "__main__":
    main()
