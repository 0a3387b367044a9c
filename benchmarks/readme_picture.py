"""The README's picture: a rendered world, its depth and its point cloud.

    python -m benchmarks.readme_picture docs/predict.png

Everything as a user would do it: `predict.py` with the packaged `tiny-worlds`, its
colour picture and its `.ply`, seen from a little above and to the side.
"""

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from app.prediction.command import main as predict
from datamodules.worlds import WorldFrames

ROWS, COLS, INDEX, SEED = 252, 336, 0, 7


def rendered(cloud: NDArray[np.void], focal_px: float) -> NDArray[np.uint8]:
    """A point cloud as a camera beside the first one sees it, (ROWS, COLS, 3) BGR."""
    points = np.stack([cloud[axis] for axis in "xyz"], 1)
    colours = np.stack([cloud[name] for name in ("blue", "green", "red")], 1)
    centre = np.median(points, 0)
    turn, down = np.radians(22), np.radians(14)
    about_y = np.array(
        [
            [np.cos(turn), 0, np.sin(turn)],
            [0, 1, 0],
            [-np.sin(turn), 0, np.cos(turn)],
        ]
    )
    about_x = np.array(
        [
            [1, 0, 0],
            [0, np.cos(down), -np.sin(down)],
            [0, np.sin(down), np.cos(down)],
        ]
    )
    moved = (points - centre) @ (about_x @ about_y).T + centre + [0, 0, 1.2]
    picture = np.full((ROWS, COLS, 3), 255, np.uint8)
    order = np.argsort(-moved[:, 2])  # the nearest last
    x, y, z = moved[order].T
    for px, py, colour in zip(
        focal_px * x / z + COLS / 2,
        focal_px * y / z + ROWS / 2,
        colours[order].tolist(),
        strict=True,
    ):
        cv2.circle(picture, (int(px), int(py)), 1, colour, -1)
    return picture


def main() -> None:
    """Write the picture."""
    frame = WorldFrames("test", INDEX + 1, [(ROWS, COLS)], SEED)[INDEX]
    assert frame.intrinsics is not None
    focal_px = float(frame.intrinsics[0, 0])
    with tempfile.TemporaryDirectory() as scratch:
        photo, out = Path(scratch) / "world.png", Path(scratch) / "out"
        cv2.imwrite(str(photo), frame.image[..., ::-1])
        command = [str(photo), "--model", "tiny-worlds", "--output", str(out)]
        command += ["--fx", f"{focal_px:.2f}"]
        predict([*command, "--formats", "color", "ply", "--accelerator", "cpu"])
        depth = cv2.imread(str(out / "world.png.color.png"))
        _, _, body = (out / "world.png.ply").read_bytes().partition(b"end_header\n")
    fields = [(axis, "<f4") for axis in "xyz"]
    fields += [(name, "u1") for name in ("red", "green", "blue")]
    cloud = rendered(np.frombuffer(body, fields), focal_px)
    assert depth is not None
    gap = np.full((ROWS, 8, 3), 255, np.uint8)
    shown = np.hstack([frame.image[..., ::-1], gap, depth, gap, cloud])
    cv2.imwrite(sys.argv[1], shown)


if __name__ == "__main__":
    main()
