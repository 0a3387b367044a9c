"""Depth from a few known points: python -m benchmarks.known_points.

The packaged network sees ray-cast rooms through a longer lens than it was trained for,
and is fitted to n true points of each image, some of which are wrong: two to five times
too near or too far. delta1 over images with 95 % intervals. `auto` is the default of
`predict.py --points`; `least squares` is the line of `auto` if it were not robust.
"""

import argparse
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import torch

from datamodules.batch import ImageInput
from datamodules.inputs import normalise
from datamodules.raycasting.scenes import ROOM_CAMERA
from datamodules.synthetic import SyntheticFrames
from models.artefacts.opening import open_model
from models.calibration import Calibration, calibrate
from models.networks.interface import DepthPredictor

SIZE = (126, 168)
FAR_M = 20.0
COUNTS = (1, 3, 10, 50)
Rule = Literal["median", "auto", "least squares"]
FITS: tuple[Rule, ...] = get_args(Rule)
FEWEST: dict[Rule, int] = {"median": 1, "auto": 1, "least squares": 2}


@torch.no_grad()
def predicted(
    network: DepthPredictor, frames: SyntheticFrames
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Prediction and truth of every frame."""
    found = []
    for index in range(len(frames)):
        frame = frames[index]
        image = normalise(frame.image, ImageInput())
        found.append((network(image[None])[0, 0].numpy(), frame.depth))
    return found


def fitted(p: np.ndarray, t: np.ndarray, fit: Rule) -> Calibration:
    if fit == "least squares":
        scale, shift = np.polyfit(p, t, 1)
        return Calibration("scale_shift", scale, shift, len(p), 0.0, 0)
    return calibrate(p, t, "metres", fit, FAR_M)


def delta1(depth: np.ndarray, truth: np.ndarray) -> float:
    known = truth > 0
    ratio = depth[known] / truth[known]
    return float((np.maximum(ratio, 1 / ratio) < 1.25).mean())


def cell(
    pairs: list[tuple[np.ndarray, np.ndarray]], fit: Rule, count: int, outliers: float
) -> str:
    """delta1 of all images after a fit to `count` points of each."""
    if count < FEWEST[fit]:
        return ""
    scores = []
    for index, (depth, truth) in enumerate(pairs):
        rng = np.random.default_rng((index, count))
        place = rng.choice(np.flatnonzero(truth), count, replace=False)
        p, t = depth.flat[place], truth.flat[place].astype(float)
        wrong = rng.random(count) < outliers
        t = t * np.where(
            wrong, rng.uniform(2, 5, count) ** rng.choice([-1, 1], count), 1
        )
        found = fitted(p, t, fit)
        scores.append(delta1(found.metres(depth, FAR_M), truth))
    half = 1.96 * np.std(scores) / len(scores) ** 0.5
    return f"{np.mean(scores):.3f} ± {half:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--fov", nargs=2, type=float, default=(30.0, 40.0))
    parser.add_argument("--outliers", nargs="+", type=float, default=[0.0, 0.2])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    camera = replace(ROOM_CAMERA, fov_deg=tuple(asked.fov))
    frames = SyntheticFrames("rooms", "test", asked.images, SIZE, camera=camera)
    network: Any = open_model("models/weights/tiny_rooms").merged().eval()
    pairs = predicted(network, frames)
    plain = np.mean([delta1(depth, truth) for depth, truth in pairs])
    print(f"{asked.images} images, delta1 as predicted {plain:.3f}\n")
    print(f"| outliers | fit | {' | '.join(f'n = {n}' for n in COUNTS)} |")
    print("|---" * (2 + len(COUNTS)) + "|")
    for outliers in asked.outliers:
        for fit in FITS:
            row = [cell(pairs, fit, count, outliers) for count in COUNTS]
            print(f"| {100 * outliers:.0f} % | {fit} | {' | '.join(row)} |")


if __name__ == "__main__":
    main()
