"""The shipped demo of two adapters and a router, whole: minutes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from app.training.command import main
from datamodules.inputs import normalise
from datamodules.raycasting.scenes import CameraRange
from datamodules.synthetic import MAX_DEPTH_M, SyntheticFrames
from models.artefacts.mixed import read_mixed
from models.metrics import METRICS, per_image
from models.opening_bank import open_bank, open_router
from models.router import pooled_features

DEMO = Path(__file__).parents[3] / "configs/demo_mixed.yaml"
NAMES = ("rooms", "streets")
COUNT, SIZE, SEED = 128, (126, 168), 7
"""Frames of each domain that no training has seen: of other scenes."""


@torch.no_grad()
def routed_scores(checkpoint: Path) -> tuple[float, dict[str, np.ndarray]]:
    """Part of the frames whose adapter the router finds; what it costs, by domain.

    Returns:
        AbsRel of each frame with the adapter that the router chose, less that with the
        right one.
    """
    several = read_mixed(checkpoint)
    bank = open_bank(several)
    router = open_router(several, bank)
    sources = yaml.safe_load(DEMO.read_text())["data"]["init_args"]["sources"]
    low = sources["rooms"]["init_args"]["camera"]
    cameras = {"rooms": CameraRange(**{k: tuple(v) for k, v in low.items()})}
    right, scores = [], {}
    for name in NAMES:
        frames = SyntheticFrames(name, "test", COUNT, SIZE, SEED, cameras.get(name))
        found: dict[str, list[float]] = {"routed": [], "right": []}
        for start in range(0, COUNT, 16):
            part = [frames[i] for i in range(start, start + 16)]
            image = torch.stack([normalise(frame.image) for frame in part])
            truth = torch.stack([torch.from_numpy(f.depth)[None] for f in part])
            valid = (truth > 1e-3) & (truth < MAX_DEPTH_M[name])
            chosen = [c.adapter for c in router.choices(pooled_features(bank, image))]
            right += [adapter == name for adapter in chosen]
            for how, adapters in (("routed", chosen), ("right", [name] * 16)):
                with bank.select(adapters):
                    depth = bank(image).clamp(1e-3, MAX_DEPTH_M[name])
                rows = per_image(depth, truth, valid)
                found[how] += rows[:, METRICS.index("abs_rel")].tolist()
        scores[name] = np.array(found["routed"]) - np.array(found["right"])
    return sum(right) / len(right), scores


@pytest.mark.slow
def test_demo__both_domains_gain_and_the_router_is_right(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["fit", "--config", str(DEMO), "--trainer.enable_progress_bar", "false"])
    run = tmp_path / "runs/demo_mixed/version_0"
    summary = json.loads((run / "summary.json").read_text())
    for name in NAMES:
        own = summary["adapters"][name]
        assert own["after"]["abs_rel"] < own["before"]["abs_rel"]
    assert "--route --output predictions" in capsys.readouterr().out
    right, scores = routed_scores(run / "checkpoints/last.ckpt")
    assert right >= 0.99
    for lost in scores.values():
        # Within noise: two standard errors of the mean of the frames' differences.
        assert lost.mean() <= 2 * lost.std(ddof=1) / COUNT**0.5 + 1e-9
