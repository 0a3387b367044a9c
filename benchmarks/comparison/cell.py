"""One run of the comparison: a contestant on a task, from a seed to its scores."""

import logging
import re
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from benchmarks.comparison.calibration import Calibrated, calibrate
from benchmarks.comparison.methods import CONTESTANTS, Method, at_budget, at_rank
from benchmarks.comparison.probes import (
    gradient_noise,
    increments,
    orthogonality_defect,
)
from benchmarks.comparison.tasks import Task, TaskData, task_named
from models import DepthAnythingModule
from models.adapters import AdapterConfig, TrainFully, merge
from models.adapters.methods.low_rank import LowRankConfig
from models.networks.presets import Size
from models.optimisation import Optimisation
from models.scoring import Scoring

SCORED = ("delta1", "abs_rel", "rmse")
LAST_CONV_LR = 3e-2
"""Peak rate of the last convolution beside any adapter, the same for all: among the
rates of the grid, what it prefers when it is all that is trained."""


@dataclass(frozen=True)
class Settings:
    """What all runs of one comparison share."""

    size: Size = "tiny"
    weights: str = "tiny-rooms"
    image_size: tuple[int, int] = (126, 168)
    pool: int = 1536
    """Training frames that each seed draws its own from."""
    n_val: int = 48
    n_test: int = 128
    n_source: int = 48
    batch_size: int = 4
    steps: int = 80
    noise_batches: int = 8
    accelerator: str = "cpu"


@dataclass(frozen=True)
class Cell:
    """One run."""

    task: str
    method: str
    n_train: int
    seed: int
    lr: float | None = None
    """Peak rate of the adapter, or of what is trained in full; None: no training."""
    share: float | None = None
    """Trainable part of all parameters; None where the method has no choice."""
    rank: int | None = None
    """In place of a share."""
    tuning: bool = False
    """Only validated, to choose the rate."""
    steps: int | None = None
    """In place of the comparison's."""

    @property
    def file_name(self) -> str:
        parts = [self.task, self.method, f"n{self.n_train}"]
        parts += [] if self.share is None else [f"share{100 * self.share:g}"]
        parts += [] if self.rank is None else [f"rank{self.rank}"]
        parts += [] if self.steps is None else [f"steps{self.steps}"]
        parts += [] if self.lr is None else [f"lr{self.lr:g}"]
        parts += [f"seed{self.seed}", *(["tuning"] if self.tuning else [])]
        return re.sub(r"[^\w.]+", "_", "-".join(parts)) + ".json"


class Watch(Callback):
    """The loss of every step, validation scores, and the gradients' noise."""

    def __init__(self, steps: int, noise_batches: int, *, noise: bool) -> None:
        self.steps, self.noise_batches = steps, noise_batches
        self.measures_noise = noise
        self.losses: list[float] = []
        self.points: list[dict[str, float]] = []
        self.noise: float | None = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.measures_noise and trainer.global_step == self.steps // 4:
            data: TaskData = trainer.datamodule  # type: ignore[attr-defined]
            focus = pl_module.optimisation.variance_focus
            batches = [
                trainer.strategy.batch_to_device(batch)
                for batch in data.plain_batches(self.noise_batches)
            ]
            self.noise = gradient_noise(pl_module.network, batches, focus)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.losses.append(round(float(trainer.callback_metrics["train/silog"]), 5))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scores = trainer.callback_metrics
        point = {name: float(scores[f"val/{name}"]) for name in SCORED}
        self.points.append({"step": trainer.global_step, **point})


def run(cell: Cell, settings: Settings, frames: Path) -> dict[str, Any]:
    """Adapt, look at what changed, and score.

    Returns:
        Plain numbers, ready for JSON; all but `seconds` are a function of the cell,
        the settings and the machine.
    """
    started = time.perf_counter()
    method, task = CONTESTANTS[cell.method], task_named(cell.task)
    data = task_data(cell, settings, frames, task)
    seed_everything(cell.seed, verbose=False)
    module, before = build(cell, settings, method, task)
    steps = cell.steps or settings.steps
    watch = Watch(steps, settings.noise_batches, noise=not cell.tuning)
    validated = 1 if cell.tuning else 2
    trainer = silent_trainer(settings, steps, steps // validated, [watch])
    result: dict[str, Any] = {
        "cell": asdict(cell),
        "total": sum(tensor.numel() for tensor in before.values()),
        "trained": 0,
    }
    if cell.method == "calibrated":
        scale, shift = calibrate(module, data)
        fitted: Any = Calibrated(module.network, scale, shift)
        module.network = fitted
        result |= {"trained": 2, "scale": scale, "shift": shift}
    elif method.trained:
        weights = [p for p in module.parameters() if p.requires_grad]
        result["trained"] = sum(p.numel() for p in weights)
        trainer.fit(module, datamodule=data)
        result |= {
            "losses": watch.losses,
            "validation": watch.points,
            "gradient_noise": watch.noise,
        }
    if not cell.tuning:
        if method.trained:
            module.cpu()
            result["increments"] = increments(module.network, before)
            result["defect"] = orthogonality_defect(module.network)
            merge(module.network)
        result["test"] = score(trainer, module, data)
        source = task_data(cell, settings, frames, task_named(task.source))
        result["source"] = score(trainer, module, source)["delta1"]
        module.scoring = Scoring(align="median")
        result["test_scaled"] = score(trainer, module, data)["delta1"]
        result["source_scaled"] = score(trainer, module, source)["delta1"]
    return result | {"seconds": round(time.perf_counter() - started, 1)}


def silent_trainer(
    settings: Settings, steps: int, val_every: int, callbacks: Sequence[Callback] = ()
) -> Trainer:
    """A trainer of so many steps that writes and prints nothing."""
    return Trainer(
        accelerator=settings.accelerator,
        devices=1,
        max_steps=steps,
        val_check_interval=val_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        deterministic=settings.accelerator == "cpu",
        callbacks=[*callbacks],
    )


def build(
    cell: Cell, settings: Settings, method: Method, task: Task
) -> tuple[DepthAnythingModule, dict[str, Tensor]]:
    """The contestant on its base, and the base's weights."""

    def module(
        adapter: AdapterConfig | None, optimisation: Optimisation
    ) -> DepthAnythingModule:
        return DepthAnythingModule(
            task.max_depth,
            task.image_size or settings.image_size,
            settings.size,
            weights=settings.weights,
            adapter=adapter,
            optimisation=optimisation,
        )

    before = module(None, Optimisation()).network.state_dict()
    config, lr = method.config, cell.lr or 0.0
    rates = Optimisation(adapter_lr=lr, head_lr=LAST_CONV_LR)
    if config is None or isinstance(config, TrainFully):
        rates = Optimisation(head_lr=lr, optimizer=method.optimizer)
    if isinstance(config, LowRankConfig):
        if cell.rank is not None:
            config = at_rank(config, settings.size, cell.rank)
        else:
            assert cell.share is not None
            total = sum(tensor.numel() for tensor in before.values())
            config = at_budget(config, settings.size, int(cell.share * total))
    contestant = module(config, rates)
    if method.restart is not None:
        method.restart(contestant.network)
    return contestant, before


def task_data(cell: Cell, settings: Settings, frames: Path, task: Task) -> TaskData:
    return TaskData(
        frames,
        task,
        settings.image_size,
        settings.batch_size,
        cell.n_train,
        cell.seed,
    )


def score(
    trainer: Trainer, module: DepthAnythingModule, data: TaskData
) -> dict[str, float]:
    (scores,) = trainer.test(module, datamodule=data, verbose=False)
    return {name: scores[f"test/{name}"] for name in SCORED}


def quiet() -> None:
    """In a worker: one thread, and no word of Lightning's about every run."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module=r"lightning|torch")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
