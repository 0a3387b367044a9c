"""Weights of the log-gradient loss, by edges and depth: python -m benchmarks.sharpness.

The packaged network is adapted by the demo's recipe to ray-cast rooms and streets, with
each weight of the loss, over the same seeds; delta1 and boundary F1 on frames that
training did not see. Intervals are Student's, 95 %, of the paired differences from
weight 0.
"""

import argparse

import numpy as np
import torch
from lightning.pytorch import Trainer, seed_everything

from benchmarks.comparison.reporting.markdown import plus_minus
from benchmarks.comparison.reporting.statistics import estimate
from datamodules import SyntheticDataModule
from datamodules.raycasting.scenes import Domain
from datamodules.synthetic import MAX_DEPTH_M
from models import DepthAnythingModule
from models.adapters import Lava
from models.optimisation import Optimisation
from models.scoring import Scoring

SIZE = (126, 168)


def scores(
    domain: Domain, weight: float, seed: int, epochs: int
) -> tuple[float, float]:
    """delta1 and boundary F1 after training."""
    seed_everything(seed, verbose=False)
    module = DepthAnythingModule(
        MAX_DEPTH_M[domain],
        SIZE,
        size="tiny",
        weights="tiny-rooms",
        adapter=Lava(rank=4),
        optimisation=Optimisation(3e-3, 1e-3, gradient_weight=weight),
    )
    module.scoring = Scoring(boundary=True)
    data = SyntheticDataModule(domain, 160, 1, 96, SIZE, seed=seed, cache=True)
    trainer = Trainer(
        max_epochs=epochs,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, data)
    (means,) = trainer.test(module, data, verbose=False)
    return means["test/delta1"], module.boundary[""].f1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domains", nargs="+", default=["rooms", "streets"])
    parser.add_argument("--weights", nargs="+", type=float, default=[0.0, 0.1, 0.5])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| domain | weight | delta1 | boundary F1 | delta1 gain | F1 gain |")
    print("|---|---|---|---|---|---|")
    for domain in asked.domains:
        plain = None
        for weight in asked.weights:
            runs = [
                scores(domain, weight, seed, asked.epochs)
                for seed in range(asked.seeds)
            ]
            found = np.array(runs)
            plain = found if plain is None else plain
            delta1, edges = found.mean(0)
            gains = [
                plus_minus(estimate(column), sign=True, digits=4)
                for column in (found - plain).T
            ]
            print(
                f"| {domain} | {weight:g} | {delta1:.4f} | {edges:.4f} | "
                f"{' | '.join(gains)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
