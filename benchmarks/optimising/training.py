"""One run: the packaged network trained whole on streets by one optimiser."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import seed_everything
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from benchmarks.comparison.cell import Settings, Watch, score, silent_trainer
from benchmarks.comparison.tasks import TASKS, TaskData
from benchmarks.optimising.contestants import CONTESTANTS
from models import DepthAnythingModule
from models.optimisation import Optimisation
from models.optimisers import Flora

TASK = TASKS["streets"]
N_TRAIN = 256


@dataclass(frozen=True)
class Run:
    """One run."""

    optimizer: str
    lr: float
    seed: int
    tuning: bool = False
    """Only validated, to choose the rate."""

    @property
    def file_name(self) -> str:
        tuning = "-tuning" if self.tuning else ""
        return f"{self.optimizer}-lr{self.lr:g}-seed{self.seed}{tuning}.json"


def train(run: Run, settings: Settings, frames: Path) -> dict[str, Any]:
    """Losses of all steps, and what the trained network scores.

    Returns:
        Plain numbers, ready for JSON; all but `seconds` are a function of the run, the
        settings and the machine.
    """
    started = time.perf_counter()
    seed_everything(run.seed, verbose=False)
    data = TaskData(
        frames, TASK, settings.image_size, settings.batch_size, N_TRAIN, run.seed
    )
    make: Any = CONTESTANTS[run.optimizer].make
    module = DepthAnythingModule(
        TASK.max_depth,
        settings.image_size,
        settings.size,
        weights=settings.weights,
        adapter=None,
        optimisation=Optimisation(head_lr=run.lr, optimizer=make),
    )
    watch = Watch(settings.steps, settings.noise_batches, noise=False)
    trainer = silent_trainer(settings, settings.steps, settings.steps, [watch])
    trainer.fit(module, datamodule=data)
    result = {
        "run": asdict(run),
        "losses": watch.losses,
        "validation": watch.points,
        "state_bytes": sum(t.nbytes for t in held_tensors(trainer.optimizers[0])),
    }
    if not run.tuning:
        result["test"] = score(trainer, module, data)
    return result | {"seconds": round(time.perf_counter() - started, 1)}


def held_tensors(optimizer: Optimizer) -> list[Tensor]:
    """All tensors that an optimiser holds between steps, projections among them."""
    found: list[Tensor] = []

    def look(value: object) -> None:
        if is_traceable_wrapper_subclass(value):  # torchao's 8-bit numbers
            for name in value.__tensor_flatten__()[0]:
                look(getattr(value, name))
        elif isinstance(value, Tensor):
            found.append(value)
        elif hasattr(value, "ortho_matrix"):  # GaLore's projector
            look(value.ortho_matrix)

    for state in optimizer.state.values():
        for value in state.values():
            look(value)
    if isinstance(optimizer, Flora):
        found += optimizer.projections()
    return found
