"""What networks make of photographs that they were not trained on.

    python -m benchmarks.zero_shot PHOTOS --models tiny-rooms OTHER
    python -m benchmarks.zero_shot PHOTOS --models tiny-rooms --split train \
        --pictures seen

PHOTOS has `index.json`: a list of {"id", "rgb", "depth", "depth_scale", "scene",
"place", "split"}, files relative to it. Each picture is predicted as `predict.py` does,
at the model's own size (`--size 126`: the picture's shape kept, both sides at least
that), and compared at the depth map's: as it is (metres), times the one factor that
brings its median to the truth's, and with its inverse fitted to the truth's by scale
and shift. Scores are means over a scene's frames, then over scenes: neighbouring
frames are nearly alike. Only truth from `--nearest` to 80 m counts.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from benchmarks.stopwatch import machine, write_json
from datamodules.files.depths.reading import read_depth
from datamodules.files.images.decoding import read_image
from datamodules.inputs import normalise, resize_image
from datamodules.sizes import DEFAULT_BOUND, InputSize, input_size
from models.alignment import Align, aligned
from models.artefacts.form import Opened
from models.artefacts.opening import open_model
from models.metrics import METRICS, per_image

WAYS: dict[str, Align] = {
    "metric": "none",
    "median": "median",
    "disparity": "disparity",
}
MAX_DEPTH_M = 80.0
Scores = dict[str, dict[str, float]]


def main() -> None:
    """Score every model, and print the tables."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.zero_shot",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--every", type=int, default=1, help="one of so many frames")
    parser.add_argument("--nearest", type=float, default=0.1, help="metres")
    parser.add_argument("--size", type=int, help="in place of the models' own")
    parser.add_argument("--pictures", type=Path, help="folder: picture, truth, depth")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    frames = [
        frame
        for frame in json.loads((options.photos / "index.json").read_text())
        if frame["split"] == options.split
    ][:: options.every]
    found: dict[str, object] = {"machine": machine("timm", on_cuda=False)}
    for source in options.models:
        opened = open_model(source).for_pictures()
        opened.merged().eval()
        size = options.size or opened.image_size or DEFAULT_BOUND
        scenes: dict[tuple[str, str], list[Scores]] = defaultdict(list)
        for frame in frames:
            image = read_image(options.photos / frame["rgb"])
            depth = read_depth(
                options.photos / frame["depth"], frame["depth_scale"], "ignore"
            )
            predicted = predict(opened, image, size, depth.shape)
            scores = scored(predicted, depth, options.nearest)
            scenes[frame["place"], frame["scene"]].append(scores)
            if options.pictures is not None:
                path = options.pictures / Path(source).name / f"{frame['id']}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), shown(image, depth, predicted))
        rows = dict(table(scenes))
        found[source] = rows
        print(f"\n{source}, {len(frames)} frames of the split {options.split}")
        print("| place or scene | frames | " + " | ".join(heads()) + " |")
        print("|---" * (2 + len(heads())) + "|")
        for name, row in rows.items():
            cells = " | ".join(f"{row[head]:.3f}" for head in heads())
            print(f"| {name} | {row['frames']:.0f} | {cells} |")
    if options.json is not None:
        write_json(options.json, found)


def heads() -> list[str]:
    return [f"{way} {name}" for way in WAYS for name in ("delta1", "abs_rel")]


@torch.inference_mode()
def predict(
    opened: Opened,
    image: NDArray[np.uint8],
    wanted: InputSize,
    size: tuple[int, ...],
) -> Tensor:
    """(1, 1, rows, cols) as predict.py gives it."""
    rows, cols = image.shape[:2]
    shape = input_size((rows, cols), wanted, opened.network.patch_px)
    resized = resize_image(image, shape, opened.image_input.shrink)
    depth: Tensor = opened.network(normalise(resized, opened.image_input)[None])
    return F.interpolate(depth, size, mode="bilinear", align_corners=True)


def scored(predicted: Tensor, depth: NDArray[np.float32], nearest: float) -> Scores:
    """Scores of one frame by way of aligning."""
    target = torch.from_numpy(depth)[None, None]
    valid = (target > nearest) & (target < MAX_DEPTH_M)
    found = {}
    for name, how in WAYS.items():
        given = 1 / predicted.clamp(min=1e-3) if how == "disparity" else predicted
        fitted = aligned(given, target, valid, how, MAX_DEPTH_M)
        values = per_image(fitted.clamp(1e-3, MAX_DEPTH_M), target, valid)
        found[name] = dict(zip(METRICS, values[0].tolist(), strict=True))
    return found


def table(
    scenes: dict[tuple[str, str], list[Scores]],
) -> Iterator[tuple[str, dict[str, float]]]:
    """A row for each scene, and the mean of each place's."""
    for place in sorted({place for place, _ in scenes}):
        rows = []
        for (where, scene), own in scenes.items():
            if where != place:
                continue
            row = {
                f"{way} {name}": mean(scores[way][name] for scores in own)
                for way in WAYS
                for name in ("delta1", "abs_rel")
            }
            rows.append({"frames": float(len(own)), **row})
            yield f"{place}: {scene}", rows[-1]
        keys = [key for key in rows[0] if key != "frames"]
        whole = {key: mean(row[key] for row in rows) for key in keys}
        yield f"**{place}**", {"frames": sum(r["frames"] for r in rows), **whole}


def shown(
    image: NDArray[np.uint8], depth: NDArray[np.float32], predicted: Tensor
) -> NDArray[np.uint8]:
    """BGR of picture, truth and median-scaled prediction in the truth's colours."""
    target = torch.from_numpy(depth)[None, None]
    fitted = aligned(predicted, target, target > 0, "median", MAX_DEPTH_M)[0, 0].numpy()
    known = depth > 0
    low, high = np.log(np.quantile(depth[known], (0.02, 0.98)))
    planes = []
    for values, seen in ((depth, known), (fitted, np.ones_like(known))):
        level = (np.log(np.maximum(values, 1e-3)) - low) / max(high - low, 1e-6)
        grey = (255 * (1 - np.clip(level, 0, 1))).astype(np.uint8)
        colour = np.asarray(cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO))
        colour[~seen] = 0
        planes.append(colour)
    return np.asarray(np.hstack([image[..., ::-1], *planes]), np.uint8)


if __name__ == "__main__":
    main()
