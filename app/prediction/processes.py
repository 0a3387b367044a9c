"""Run a network on several processors, each process its share: Lightning's part."""

import time
from typing import Any, TypeVar

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import distributed
from torch.utils.data import DataLoader

from app.prediction.batch import PhotographBatch, Step
from app.prediction.options import Prediction
from app.prediction.running import Loader, Runner, Sink

T = TypeVar("T")


class Processes(Runner):
    """As many as are asked for, or as a launcher has started.

    Args:
        prediction: On which processors, and how precisely.
    """

    def __init__(self, prediction: Prediction) -> None:
        self.trainer = Trainer(
            accelerator=prediction.accelerator,
            devices=prediction.devices,
            precision=prediction.precision,
            logger=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            use_distributed_sampler=False,
        )
        self.rank, self.world_size = self.trainer.global_rank, self.trainer.world_size

    def run(self, step: Step, loader: Loader, sink: Sink) -> None:
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        added = _Added(sink)
        callbacks.append(added)
        try:
            self.trainer.predict(
                _Stepping(step), _Shares(loader), return_predictions=False
            )
        finally:
            callbacks.remove(added)

    def gathered(self, own: T) -> list[T]:
        if not (distributed.is_available() and distributed.is_initialized()):
            return [own]
        shares: list[Any] = [None] * self.world_size
        distributed.all_gather_object(shares, own)
        return shares

    def barrier(self) -> None:
        self.trainer.strategy.barrier()


class _Stepping(LightningModule):
    def __init__(self, own: Step) -> None:
        super().__init__()
        self.own = own

    def predict_step(self, batch: PhotographBatch, batch_idx: int) -> Any:
        return self.own.step(batch)


class _Shares(LightningDataModule):
    """Each process's batches."""

    def __init__(self, loader: Loader) -> None:
        super().__init__()
        # There may be fewer pictures than processes.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.loader = loader

    def predict_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        return self.loader(self.trainer.world_size, self.trainer.global_rank)


class _Added(Callback):
    """Hands outcomes on."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self._began = time.monotonic()

    def on_predict_batch_start(self, *_: Any, **__: Any) -> None:
        self._began = time.monotonic()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: PhotographBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.sink.add(outputs, batch, time.monotonic() - self._began)
