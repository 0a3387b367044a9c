"""What a run ends with: the table before and after, and the files beside it."""

import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from app.training.folder import RunCallback
from datamodules.batch import DepthBatch
from datamodules.files.whole import write_json
from datamodules.protocols import Protocol
from models.alignment import Align, aligned
from models.depth_module import DepthModule
from models.metrics import METRICS, DepthMetrics
from models.scored_module import place

Row = dict[str, float]
LABELS: dict[Align, str] = {
    "none": "metric",
    "median": "median-scaled, not metric",
    "scale_shift": "scale and shift fitted, not metric",
    "disparity": "affine disparity fitted, not metric",
}


class Summary(RunCallback):
    """Scores before the first and after the last step: a table and `summary.json`.

    The score before comes from Lightning's sanity check, so
    `--trainer.num_sanity_val_steps -1` must let it see the whole validation set; with
    fewer steps there is no row before.
    """

    def __init__(self) -> None:
        self._median: dict[str, DepthMetrics] = {}
        self._before: dict[str, Row] = {}
        self._before_median: dict[str, Row] = {}
        self._seconds = 0.0
        self._began = time.monotonic()
        self._report = ""

    def state_dict(self) -> dict[str, Any]:
        return {
            "before": self._before,
            "before_median": self._before_median,
            "seconds": self._elapsed(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = _by_source(state_dict["before"])
        self._before_median = _by_source(state_dict["before_median"])
        self._seconds = state_dict["seconds"]
        self._began = time.monotonic()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.monotonic()
        if isinstance(pl_module, DepthModule):
            self._median = {
                source: DepthMetrics().to(pl_module.device)
                for source in pl_module.sources
            }

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: DepthBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.sanity_checking:
            assert isinstance(pl_module, DepthModule)
            target, valid = batch["depth"], batch["valid"]
            source = pl_module.source_of(batch)
            protocol = pl_module.protocol_of(source)
            scaled = aligned(outputs, target, valid, "median", protocol.max_depth)
            self._median[source].update(scaled, target, valid, protocol.silog)

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        median = {}
        for source, metrics in self._median.items():
            means = metrics.compute()
            median[source] = {name: float(means[name]) for name in METRICS}
            metrics.reset()
        # A resumed run is checked, too, but did not begin there.
        if trainer.num_sanity_val_steps == float("inf") and not self._before:
            found = trainer.callback_metrics
            self._before = {s: _row(found, place("val", s)) for s in median}
            self._before_median = median

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not isinstance(pl_module, DepthModule) or not trainer.is_global_zero:
            return
        found = trainer.callback_metrics
        after = {s: _row(found, place("val", s)) for s in pl_module.sources}
        if not all(after.values()):
            nothing = ["nothing was validated: there is no score"]
            self._report = "\n".join(nothing + self._places(trainer, pl_module))
            return
        trainable, total = parameters(pl_module)
        lines: list[str] = []
        scores: dict[str, dict[str, Any]] = {}
        for source, row in after.items():
            scores[source] = self._scores(pl_module, source, row)
            lines += self._table(pl_module, source, row)
        routed = found.get("val/routed")
        summary = {
            **scores.get("", {"adapters": scores}),
            **({} if routed is None else {"routed": float(routed)}),
            "trainable_params": trainable,
            "total_params": total,
            "seconds": round(self._elapsed(), 1),
        }
        if self.folder is not None:
            write_json(self.folder / "summary.json", summary)
        if routed is not None:
            lines.append(f"the router chose rightly for {100 * routed:.1f} % of images")
        lines.append(
            f"trained {trainable:,} of {total:,} parameters "
            f"({100 * trainable / total:.2f} %)"
        )
        self._report = "\n".join(lines + self._places(trainer, pl_module))

    def _scores(self, module: DepthModule, source: str, after: Row) -> dict[str, Any]:
        """What `summary.json` says of a source."""
        return {
            "before": self._before.get(source),
            "before_median_scaled": self._before_median.get(source),
            "after": after,
            "protocol": module.protocol_of(source).name,
            "n_images": module.images[place("val", source)],
        }

    def _table(self, module: DepthModule, source: str, after: Row) -> list[str]:
        protocol = module.protocol_of(source)
        images = module.images[place("val", source)]
        rows = {
            "before": self._before.get(source),
            "before, median-scaled": self._before_median.get(source),
            "after": after,
        }
        named = f"{source}: " if source else ""
        return [
            f"{named}protocol {protocol.name}, {images} images",
            table({name: row for name, row in rows.items() if row}),
            *count_warning(protocol, images),
        ]

    def _places(self, trainer: Trainer, module: DepthModule) -> list[str]:
        """Where things are, and what to do next."""
        lines = []
        if self.folder is not None:
            lines.append(f"run folder: {_relative(str(self.folder))}")
        for kind in ("best", "last"):
            path = getattr(trainer.checkpoint_callback, f"{kind}_model_path", "")
            if path:
                path = shlex.quote(_relative(path))
                return [
                    *lines,
                    f"{kind} checkpoint: {path}",
                    f"next: python predict.py PHOTOGRAPHS --model {path} "
                    f"{module.predicts_with}--output predictions",
                ]
        return lines

    def report(self) -> None:
        """Print the table and what to do next, in the process that has it."""
        if self._report:
            print(f"\n{self._report}")

    def _elapsed(self) -> float:
        return self._seconds + time.monotonic() - self._began


class TestResults(Callback):
    """The result table of `train.py test`, and `test_<protocol>.json`.

    Aligned and mirrored scores are labelled and have files of their own. A file lies
    beside the checkpoint that was tested, or else in `--trainer.default_root_dir`.
    """

    def __init__(self) -> None:
        self._report = ""

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not isinstance(pl_module, DepthModule):
            return
        lines: list[str] = []
        loaders = trainer.test_dataloaders
        each = loaders if isinstance(loaders, list) else [loaders]
        for source, loader in zip(pl_module.sources, each, strict=True):
            lines += self._of_source(trainer, pl_module, source, len(loader.dataset))
        self._report = "\n".join(lines)

    def _of_source(
        self, trainer: Trainer, module: DepthModule, source: str, frames: int
    ) -> list[str]:
        """Write a source's results; what to print of them."""
        where = place("test", source)
        metrics = _row(trainer.callback_metrics, where)
        protocol, images = module.protocol_of(source), module.images[where]
        trainable, total = parameters(module)
        record, scoring = module.record_of(source), module.scoring
        empty, edges = module.empty[where], module.boundary.get(source)
        ckpt = trainer.ckpt_path
        folder = Path(ckpt).parent if ckpt else Path(trainer.default_root_dir)
        part = "" if images + empty >= frames else "_part"
        named = f"_{source}" if source else ""
        path = folder / f"test{named}_{protocol.name}{scoring.suffix}{part}.json"
        write_json(
            path,
            {
                **({"source": source} if source else {}),
                "protocol": protocol.name,
                "n_images": images,
                "metrics": metrics,
                "align": scoring.align,
                "flip_tta": scoring.flip_tta,
                "boundary": edges and edges._asdict(),
                "n_empty": empty,
                "checkpoint": Path(ckpt).name if ckpt else None,
                "model": record.own()["network"] | {"base": record.base.weights},
                "adapter": record.to_dict()["adapter"],
                "trainable_params": trainable,
                "total_params": total,
            },
        )
        label = LABELS[scoring.align] + (", with flip" if scoring.flip_tta else "")
        lines = [
            f"{source}: protocol {protocol.name}, {images} images".removeprefix(": "),
            table({label: metrics}),
            f"trained {trainable:,} of {total:,} parameters "
            f"({100 * trainable / total:.2f} %)",
        ]
        if edges is not None:
            lines.append(
                f"boundary F1 {edges.f1:.4f} of {edges.n_images} images; "
                f"{edges.n_without_edges} have no edge and were not averaged"
            )
        if empty:
            lines.append(f"{empty} images had no valid pixel and were not averaged")
        lines += count_warning(protocol, images)
        if part:
            lines.append(
                f"WARNING: {images + empty} of {frames} images were scored; this is "
                "no result of the data set"
            )
        return [*lines, f"results: {_relative(str(path))}"]

    def report(self) -> None:
        """Print the table, in the process that has it."""
        if self._report:
            print(f"\n{self._report}")


def count_warning(protocol: Protocol, images: int) -> list[str]:
    """A line that says so where a score is not of the protocol's own list."""
    if protocol.n_images in (None, images):
        return []
    return [
        f"WARNING: {protocol.name} has {protocol.n_images} images, but {images} were "
        "scored: this is not the number of the literature"
    ]


def table(rows: Mapping[str, Row]) -> str:
    """Rows of the nine metrics in columns; delta is better high, the rest low."""
    width = max(len(name) for name in rows)
    lines = [" ".join([" " * width, *(f"{name:>8}" for name in METRICS)])]
    for name, row in rows.items():
        cells = (f"{row[metric]:8.4f}" for metric in METRICS)
        lines.append(" ".join([f"{name:<{width}}", *cells]))
    return "\n".join(lines)


def parameters(module: DepthModule) -> tuple[int, int]:
    """Numbers of trainable and of all parameters of a module's network."""
    trained = {p for _, p in module.trained_parameters() if p.requires_grad}
    whole = {*module.network.parameters(), *trained}
    return sum(p.numel() for p in trained), sum(p.numel() for p in whole)


def _by_source(rows: Mapping[str, Any]) -> dict[str, Row]:
    """Of a checkpoint; those up to November 2026 have the row of the only source."""
    plain = any(not isinstance(row, Mapping) for row in rows.values())
    return {"": dict(rows)} if plain else dict(rows)


def _row(metrics: Mapping[str, Any], stage: str) -> Row:
    found = {name: metrics.get(f"{stage}/{name}") for name in METRICS}
    return {name: float(value) for name, value in found.items() if value is not None}


def _relative(path: str) -> str:
    here = Path.cwd()
    whole = Path(path).resolve()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)
