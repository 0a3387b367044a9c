"""Several adapters of one network in one training, each with data of its own."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from datamodules.batch import DepthBatch
from datamodules.protocols import Protocol
from models.adapters import is_never_trained
from models.adapters.each import examples_of, losses_of_each
from models.adapters.state import differences
from models.artefacts.checkpoint import ADAPTERS
from models.artefacts.depth_adapter import DepthAdapter
from models.artefacts.depth_record import DepthRecord
from models.artefacts.descriptions import FORMAT_VERSION
from models.artefacts.files import KEY
from models.artefacts.mixed import MEMBERS, ROUTER, below
from models.boundary import BoundaryF1
from models.camera import SeenCameras
from models.depth_bank import DepthBank, unit_network
from models.depth_metrics import DepthMetrics
from models.depth_module import DepthModule
from models.errors import CheckpointError, OptionError
from models.losses import log_gradient, silog
from models.metrics import METRICS
from models.mixed_optimisation import MixedOptimisation
from models.mixed_recipes import Recipe, check_cameras, checked, records_of, said
from models.mixed_step import MixedStep
from models.resuming import (
    INSTEAD,
    check_shrink,
    check_whole,
    end_of_epoch,
    image_shrink,
)
from models.router import Router, new_router, pooled_features
from models.scoring import Scoring
from models.soundness import steps_of
from models.task_module import AVERAGED, STATES


class MixedModule(DepthModule):
    """Adapters by name over one frozen network; the data have a source for each.

    In a step, each adapter's loss is over its own examples, with its own penalty, and
    its gradients are clipped by their own norm; over accumulated batches and over
    processes, they are the mean by numbers of examples. One without examples in a step
    does not move.

    Args:
        max_depth: Metres of each; linked to the data's sources.
        image_size: Input (rows, cols) of each; linked likewise.
        adapters: Name to what a recipe of its own would say below `model`. All have the
            same base, and one optimiser.
        router: Train a router beside them, which chooses an adapter for a picture.
        router_lr: Its peak learning rate.
    """

    takes = "pictures of several sources"

    def __init__(
        self,
        max_depth: dict[str, float],
        image_size: dict[str, tuple[int, int]],
        adapters: dict[str, Recipe],
        router: bool = True,
        router_lr: float = 1e-2,
    ) -> None:
        if max_depth.keys() != adapters.keys():
            raise OptionError(
                f"model.adapters has {said(adapters)}, but data.sources has "
                f"{said(max_depth)}; give each adapter its source, of the same name"
            )
        first = next(iter(adapters))
        each: dict[str, DepthModule] = {}
        bank: DepthBank | None = None
        for name, make in adapters.items():
            alone = checked(name, make(max_depth[name], image_size[name]))
            if bank is None:
                bank = DepthBank(unit_network(alone.record))
            state = alone.network.state_dict()
            tensors = {n: state[n] for n in alone.record.saved_names(alone.network)}
            started = DepthAdapter.of(alone.record, tensors, f"model.adapters {name}")
            bank.add(name, started, trainable=True)
            parts = alone.network.encoder.modules()
            if any(getattr(part, "grad_checkpointing", False) for part in parts):
                bank.network.checkpoint_gradients()
            each[name] = alone
        assert bank is not None
        check_cameras({name: alone.record for name, alone in each.items()})
        super().__init__(bank.network, each[first].record, each[first].optimisation)
        self.bank = bank
        for name, parameter in self.trained_parameters():
            if is_never_trained(bank.network, name.partition("/")[2]):
                parameter.requires_grad_(False)
        self.router: Router | None = None
        if router:
            self.router = new_router(bank, image_size[first])
        self.records = {name: alone.record for name, alone in each.items()}
        self.each = {name: alone.optimisation for name, alone in each.items()}
        self.regime: MixedOptimisation = MixedOptimisation(self.each, router_lr)
        self.scores_of = {name: record.scores for name, record in self.records.items()}
        self._cameras_of = {
            n: SeenCameras(r.focals_px) for n, r in self.records.items()
        }
        # Lists: a dictionary of modules refuses names like "type".
        self._val = nn.ModuleList(DepthMetrics() for _ in each)
        self._test = nn.ModuleList(DepthMetrics() for _ in each)
        self._edges = nn.ModuleList(BoundaryF1() for _ in each)
        self._routed = torch.zeros(2, dtype=torch.long)
        self._step = MixedStep(self.bank, self.router)
        self.predicts_with = "--route " if router else f"--adapter {first} "

    def forward(self, image: Tensor) -> Tensor:
        """Depth (B, 1, h, w) by the adapters that are selected in `bank`."""
        depth: Tensor = self.bank(image)
        return depth

    def trained_parameters(self) -> Any:
        """Those of all adapters, each name behind its adapter's."""
        for name in self.bank.names:
            member = self.bank.adapters.roster.find(name)
            for key, parameter in member.named_parameters():
                yield f"{name}/{key}", parameter

    def training_step(self, batch: DepthBatch, batch_idx: int) -> Tensor:
        self._note_skipped(batch)
        names, size = batch["adapter"], len(batch["path"])
        target, valid = batch["depth"], batch["valid"]
        self.count_pixels(valid)
        with self.bank.select(names):
            depth = self.metres(self(batch["image"]), batch)

            def loss(own: list[int]) -> Tensor:
                name = names[own[0]]
                recipe, count = self.each[name], len(own)
                parts = depth[own], target[own], valid[own]
                found = silog(*parts, recipe.variance_focus)
                self.log(f"train/{name}/silog", found.detach(), batch_size=count)
                if weight := recipe.gradient_weight:
                    edges = log_gradient(*parts)
                    key = f"train/{name}/log_gradient"
                    self.log(key, edges.detach(), batch_size=count)
                    found = found + weight * edges
                return found

            each = losses_of_each(self.bank.adapters, names, loss)
        counts = {name: len(own) for name, own in examples_of(names).items() if name}
        if self.router is not None:
            pooled = pooled_features(self.bank, batch["image"])
            each[ROUTER_LOSS] = self.router.loss(pooled, names)
            counts[ROUTER_LOSS] = size
            self.log("train/router", each[ROUTER_LOSS].detach(), batch_size=size)
        mean = sum(each[name].detach() * counts[name] for name in set(names)) / size
        self.log("loss", mean, prog_bar=True, batch_size=size)
        return self._step.add(each, counts, names, self.trainer.world_size)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        # Checkpointed activations are computed again here, on a GPU in other threads.
        with self.bank.adapters.select(self._step.names, everywhere=True):
            super().backward(loss, *args, **kwargs)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self._step.average(self.trainer)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            self._step.clip(gradient_clip_val)

    def configure_optimizers(self) -> Any:
        steps = steps_of(self.trainer)
        optimizer, schedule = self.regime.make(self.bank, self.router, steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    @property
    def sources(self) -> tuple[str, ...]:
        return self.bank.names

    def record_of(self, source: str = "") -> DepthRecord:
        return self.records[source]

    def source_of(self, batch: DepthBatch) -> str:
        return batch["adapter"][0]

    def protocol_of(self, source: str = "") -> Protocol:
        found: Protocol = self.trainer.datamodule.parts[source].protocol  # type: ignore[attr-defined]
        return found

    def validation_step(
        self, batch: DepthBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> Tensor:
        return self._of_source(batch, self._val, Scoring())

    def test_step(
        self, batch: DepthBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> Tensor:
        depth = self._of_source(batch, self._test, self.scoring)
        if self.scoring.boundary:
            edges = self._edges[self.sources.index(self.source_of(batch))]
            assert isinstance(edges, BoundaryF1)
            edges.update(depth, batch["depth"], batch["valid"])
        self._note_each(depth, batch)
        return depth

    def on_validation_epoch_end(self) -> None:
        self._log_each("val", self._val)

    def on_test_epoch_end(self) -> None:
        self._log_each("test", self._test)
        self._gather_each()
        if self.scoring.boundary:
            for name, edges in zip(self.sources, self._edges, strict=True):
                assert isinstance(edges, BoundaryF1)
                self.boundary[name] = edges.scores()

    def _of_source(
        self, batch: DepthBatch, metrics: nn.ModuleList, scoring: Scoring
    ) -> Tensor:
        names = batch["adapter"]
        if self.router is not None:
            pooled = pooled_features(self.bank, batch["image"])
            found = self.router(pooled).argmax(1)
            right = (found == self.router.targets(names, found)).sum()
            self._routed = self._routed.to(found.device)
            self._routed += torch.stack((right, right.new_tensor(len(names))))
        own = metrics[self.sources.index(self.source_of(batch))]
        assert isinstance(own, DepthMetrics)
        with self.bank.select(names):
            return self._evaluate(batch, own, scoring)

    def _log_each(self, stage: str, metrics: nn.ModuleList) -> None:
        """Each source's scores, and their mean over sources under the plain names."""
        found = []
        for name, own in zip(self.sources, metrics, strict=True):
            assert isinstance(own, DepthMetrics)
            found.append(self._log_means(stage, own, name))
        means = {m: torch.stack([f[m] for f in found]).mean() for m in METRICS}
        self.log_dict({f"{stage}/{m}": v for m, v in means.items()}, sync_dist=True)
        if self.router is not None:
            right, seen = self.trainer.strategy.reduce(self._routed, reduce_op="sum")
            self._routed = torch.zeros_like(self._routed)
            self.log(f"{stage}/routed", right / seen, sync_dist=True)

    def _keep_scores(self, scores: dict[str, Any], source: str) -> None:
        self.scores_of[source] = scores

    def _note_cameras(self, batch: DepthBatch, focal_px: Tensor, zoom: Tensor) -> None:
        ends_at = self.bank.ranges(zoom)[:, 0, 0, 0]
        reach = zoom * (ends_at if self.network.saturates else float("inf"))
        for name, own in examples_of(batch["adapter"]).items():
            assert name is not None
            self._cameras_of[name].note(
                focal_px[own], batch["depth"][own], batch["valid"][own], reach[own]
            )

    def _report_cameras(self, canonical_px: float) -> None:
        for name, cameras in self._cameras_of.items():
            cameras.gathered(self.all_gather(cameras.own.to(self.device)))  # type: ignore[arg-type]
            far = self.protocol_of(name).max_depth
            if line := cameras.out_of_reach(canonical_px, far):
                rank_zero_warn(f"{name}: {line}")

    def saved_keys(self) -> list[str]:
        own = (MEMBERS, f"{ROUTER}.")
        return [key for key in self.state_dict() if key.startswith(own)]

    def description(self) -> dict[str, Any]:
        records = {
            name: replace(
                record,
                scores=self.scores_of[name],
                focals_px=self._cameras_of[name].focals_px(),
                image_shrink=self._shrink_of(name),
            ).to_dict()
            for name, record in self.records.items()
        }
        about = {"format_version": FORMAT_VERSION, ADAPTERS: records}
        return (
            about if self.router is None else about | {ROUTER: self.router.describe()}
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        if fitting:
            self.check_resumable(checkpoint)
            end_of_epoch(checkpoint)
        found = records_of(checkpoint, self.records)
        for name, record in found.items():
            self.scores_of[name] = record.scores
            self._cameras_of[name] = SeenCameras(record.focals_px)
            check_shrink(record, self._shrink_of(name))
            tensors = below(checkpoint["state_dict"], f"{MEMBERS}{name}.")
            if changes := differences(self.records[name].adapter, record.adapter):
                # Its own adapter alone gives its tensors a meaning.
                rank_zero_warn(
                    f"the checkpoint's own adapter {name} is used: {'; '.join(changes)}"
                )
                self.bank.adapters.remove(name)
                self.bank.add(name, DepthAdapter.of(record, tensors, name))
                self.records[name] = record
        if fitting and AVERAGED in checkpoint:
            whole = self.state_dict()
            checkpoint |= {part: whole | checkpoint[part] for part in STATES}

    def check_resumable(self, checkpoint: Mapping[str, Any]) -> None:
        found = records_of(checkpoint, self.records)
        check_whole(checkpoint, self.regime.kind())
        for name, record in found.items():
            if changes := differences(self.records[name].adapter, record.adapter):
                raise CheckpointError(
                    f"the checkpoint's adapter {name} is another one: "
                    f"{'; '.join(changes)}; use {INSTEAD}"
                )
        if (ROUTER in checkpoint[KEY]) != (self.router is not None):
            has = "a" if ROUTER in checkpoint[KEY] else "no"
            raise CheckpointError(
                f"the checkpoint has {has} router, but model.router is "
                f"{str(self.router is not None).lower()}; use {INSTEAD}"
            )

    def _shrink_of(self, name: str) -> Any:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        own = data.parts.get(name) if hasattr(data, "parts") else None
        return image_shrink(self.trainer) if own is None else own.image_input.shrink


ROUTER_LOSS = "\0router"
"""Among losses by adapter; no adapter has such a name."""
