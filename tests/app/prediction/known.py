"""Predictions with tables of known points."""

import json

import numpy as np

from app.prediction.command import main


def predict(pictures, model, *more, out="out", formats=("npy",)):
    """Depth maps and entries by picture, and the header."""
    folder = pictures.parent / out
    fixed = ["--accelerator", "cpu", "--devices", "1", "--workers", "0"]
    given = ["--model", str(model), "--output", str(folder), "--formats", *formats]
    main([str(pictures), *given, *fixed, *map(str, more)])
    content = json.loads((folder / "predictions.json").read_text())
    maps = {name: np.load(folder / f"{name}.depth.npy") for name in content["files"]}
    return maps, content["files"], content["header"]


def plain(pictures, model):
    return predict(pictures, model, out="plain")[0]


def write_table(pictures, truth, count=12, name="points.csv"):
    """Points of true depth maps; of one picture `count` points, none where it is 0."""
    lines = ["image,x,y,depth"]
    rng = np.random.default_rng(1)
    for picture, depth in truth.items():
        for _ in range(count if isinstance(count, int) else count[picture]):
            y, x = (int(rng.integers(0, n)) for n in depth.shape)
            lines.append(f"{picture},{x},{y},{depth[y, x]:.9g}")
    path = pictures / name
    path.write_text("\n".join(lines) + "\n")
    return path
