"""What a run ends with: the table before and after, and the files beside it."""

import csv
import json
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from app.training.folder import RunCallback
from datamodules.files.whole import whole_file, write_json
from models.task_module import Row, TaskModule, Told


class Summary(RunCallback):
    """Scores before the first and after the last step: a table and `summary.json`.

    The score before comes from Lightning's sanity check, so
    `--trainer.num_sanity_val_steps -1` must let it see the whole validation set; with
    fewer steps there is no row before.
    """

    def __init__(self) -> None:
        self._before: dict[str, Row] = {}
        self._before_too: dict[str, Row] = {}
        self._seconds = 0.0
        self._scored_at = 0
        self._began = time.monotonic()
        self._report = ""

    def state_dict(self) -> dict[str, Any]:
        return {
            "before": self._before,
            "before_median": self._before_too,
            "seconds": self._elapsed(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = _by_source(state_dict["before"])
        self._before_too = _by_source(state_dict["before_median"])
        self._seconds = state_dict["seconds"]
        self._began = time.monotonic()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.monotonic()

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = _task(pl_module)
        too = module.rows_before()
        # A resumed run is checked, too, but did not begin there.
        if trainer.num_sanity_val_steps == float("inf") and not self._before:
            self._before = {s: module.row("val", s) for s in module.sources}
            self._before_too = too

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._scored_at = trainer.global_step

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        module, found = _task(pl_module), trainer.callback_metrics
        after = {s: module.row("val", s) for s in module.sources}
        if not all(after.values()):
            nothing = ["nothing was validated: there is no score"]
            self._report = "\n".join(nothing + self._places(trainer, module))
            return
        trainable, total = module.counts()
        lines: list[str] = []
        scores: dict[str, dict[str, Any]] = {}
        for source, row in after.items():
            rows = self._rows(module, source, row)
            told = module.told({n: r for n, r in rows.items() if r}, source)
            named = {_key(label): row for label, row in rows.items()}
            scores[source] = {**named, **told.content}
            lines += [told.heading, table(told.rows), *told.notes]
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
        lines.append(_trained(module))
        if self._scored_at < trainer.global_step:
            lines.append(
                f"WARNING: after is of step {self._scored_at}, the last one that was "
                f"validated, and training ended at step {trainer.global_step}: "
                "`train.py validate --ckpt_path last` scores the end"
            )
        self._report = "\n".join(lines + self._places(trainer, module))

    def _rows(
        self, module: TaskModule, source: str, after: Row
    ) -> dict[str, Row | None]:
        """Of a source, by label; None where nothing was scored."""
        rows: dict[str, Row | None] = {"before": self._before.get(source)}
        if module.before_too:
            rows[module.before_too] = self._before_too.get(source)
        return {**rows, "after": after}

    def _places(self, trainer: Trainer, module: TaskModule) -> list[str]:
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
                    f"next: {module.next_command(path)}",
                ]
        return lines

    def report(self) -> None:
        """Print the table and what to do next, in the process that has it."""
        if self._report:
            print(f"\n{self._report}")

    def _elapsed(self) -> float:
        return self._seconds + time.monotonic() - self._began


class TestResults(Callback):
    """The result table of `train.py test`, and `test_<rules>.json`.

    Scores by other rules are labelled and have files of their own. A file lies beside
    the checkpoint that was tested, or else in `--trainer.default_root_dir`.
    """

    def __init__(self) -> None:
        self._report = ""

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = _task(pl_module)
        lines: list[str] = []
        loaders = trainer.test_dataloaders
        each = loaders if isinstance(loaders, list) else [loaders]
        for source, loader in zip(module.sources, each, strict=True):
            lines += self._of_source(trainer, module, source, len(loader.dataset))
        self._report = "\n".join(lines)

    def _of_source(
        self, trainer: Trainer, module: TaskModule, source: str, items: int
    ) -> list[str]:
        """Write a source's results; what to print of them."""
        told, record = module.tested(source), module.record_of(source)
        trainable, total = module.counts()
        ckpt = trainer.ckpt_path
        folder = Path(ckpt).parent if ckpt else Path(trainer.default_root_dir)
        also = {
            "checkpoint": Path(ckpt).name if ckpt else None,
            "data": _data(trainer, source),
            "model": record.own()["network"] | {"base": record.base.weights},
            "adapter": record.to_dict()["adapter"],
            "trainable_params": trainable,
            "total_params": total,
        }
        return write_result(folder, told, items, also, [_trained(module)])

    def report(self) -> None:
        """Print the table, in the process that has it."""
        if self._report:
            print(f"\n{self._report}")


def write_result(
    folder: Path, told: Told, items: int, also: Mapping[str, Any], notes: Sequence[str]
) -> list[str]:
    """Write what a test came to; what to print of it.

    Args:
        folder: Gets `test_<rules>.json`, and a CSV where items were scored each.
        told: What it came to.
        items: How many there are.
        also: What else the JSON says.
        notes: Of what was scored, below the table.
    """
    part = "" if told.counted >= items else "_part"
    path = folder / f"test_{told.name}{part}.json"
    lines = [told.heading, table(told.rows), *notes, *told.notes]
    lines += _instead_of(path, also)
    # Of the one that was there before, the images would not be those of the JSON.
    path.with_suffix(".csv").unlink(missing_ok=True)
    write_json(path, {**told.content, **also})
    if told.each:
        write_rows(path.with_suffix(".csv"), told.each)
    if part:
        lines.append(
            f"WARNING: {told.counted} of {items} {told.unit} were scored; this is "
            "no result of the data set"
        )
    each = f", each image in {path.stem}.csv" if told.each else ""
    return [*lines, f"results: {_relative(str(path))}{each}"]


def _instead_of(path: Path, also: Mapping[str, Any]) -> list[str]:
    """That results of another checkpoint or of other data go, if they do."""
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError):
        return []
    changed = [
        f"{name} {before[name]}"
        for name in ("checkpoint", "data")
        if name in before and before[name] != also.get(name)
    ]
    return [f"in place of the results of {', '.join(changed)}"] if changed else []


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Rows as a CSV, whole or not at all."""
    with whole_file(path) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def table(rows: Mapping[str, Row]) -> str:
    """Rows of metrics in columns, those of the first row."""
    width = max(len(name) for name in rows)
    columns = {name: max(8, len(name)) for name in next(iter(rows.values()))}
    heads = (f"{name:>{space}}" for name, space in columns.items())
    lines = [" ".join([" " * width, *heads])]
    for name, row in rows.items():
        cells = (f"{_cell(row.get(n)):>{space}}" for n, space in columns.items())
        lines.append(" ".join([f"{name:<{width}}", *cells]))
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _data(trainer: Trainer, source: str) -> str | None:
    """Where the data of a source lie; None of those that are made."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    root = getattr(getattr(data, "parts", {}).get(source, data), "root", None)
    return None if root is None else str(Path(root).expanduser().resolve())


def _trained(module: TaskModule) -> str:
    trainable, total = module.counts()
    return (
        f"trained {trainable:,} of {total:,} parameters "
        f"({100 * trainable / total:.2f} %)"
    )


def _task(module: LightningModule) -> TaskModule:
    assert isinstance(module, TaskModule)
    return module


def _key(label: str) -> str:
    """A row's label as JSON has it."""
    return re.sub(r"\W+", "_", label)


def _by_source(rows: Mapping[str, Any]) -> dict[str, Row]:
    """Of a checkpoint; those up to November 2026 have the row of the only source."""
    plain = any(not isinstance(row, Mapping) for row in rows.values())
    return {"": dict(rows)} if plain else dict(rows)


def _relative(path: str) -> str:
    here = Path.cwd()
    whole = Path(path).resolve()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)
