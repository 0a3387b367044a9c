"""The folder of a run: its checkpoints, options, metrics and pictures."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jsonargparse
from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from models.errors import CheckpointError

RUNS = Path("runs")
CHECKPOINTS = "checkpoints"
OPTIONS = "config.yaml"
RECORDS = (("metrics", ".csv"), ("config", ".yaml"))


class RunCallback(Callback):
    """A callback that writes into the run's folder."""

    folder: Path | None = None
    """Set by the command line before the run; without it, nothing is written."""


def runs_of(config: jsonargparse.Namespace) -> Path:
    """Where the runs of a command's recipes are: `runs/<names of the recipes>`."""
    names = "-".join(Path(str(path)).stem for path in config.config or [])
    return Path(config.trainer.default_root_dir or ".") / RUNS / (names or "fit")


def new_run(runs: Path) -> Path:
    """`version_N`, N the first free number.

    The folder is taken by making it, or two runs that begin together would share it. Of
    several processes the first one alone writes, so the others' number is of no use.
    """
    number = 0
    while True:
        run = runs / f"version_{number}"
        if getattr(rank_zero_only, "rank", 0) != 0:
            return run
        try:
            run.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return run


def newest(runs: Path, name: str, *, needed: bool) -> str | None:
    """The last or best checkpoint that was written last, of all runs of a recipe.

    Raises:
        CheckpointError: If there is none and one is needed.
    """
    found = list(runs.glob(f"version_*/{CHECKPOINTS}/{name}.ckpt"))
    if not found and needed:
        raise CheckpointError(
            f"--ckpt_path {name}: no run in {runs} has a {name}.ckpt; give its path, "
            "or train with this recipe first"
        )
    if not found:
        rank_zero_info(f"no run in {runs} has a {name}.ckpt yet: this one begins anew")
        return None
    return str(max(found, key=lambda path: path.stat().st_mtime_ns))


def run_of(ckpt_path: object) -> Path | None:
    """The run folder that a checkpoint lies in."""
    if not isinstance(ckpt_path, str):
        return None
    path = Path(ckpt_path)
    run = path.parent.parent
    if path.parent.name != CHECKPOINTS or not path.is_file():
        return None
    return run if run.name.startswith("version_") else None


def give_back(run: Path) -> None:
    """Remove the folder of a new run that was refused before it had options."""
    if getattr(rank_zero_only, "rank", 0) == 0 and not (run / OPTIONS).exists():
        shutil.rmtree(run, ignore_errors=True)


@contextmanager
def records_kept(run: Path | None) -> Iterator[None]:
    """Rename a resumed run's metrics and options, which its files would overwrite.

    Where it is refused before it has options of its own, they get their names back.
    """
    if run is None or getattr(rank_zero_only, "rank", 0) != 0:
        yield
        return
    number = 1
    while any((run / f"{name}_{number}{suffix}").exists() for name, suffix in RECORDS):
        number += 1
    names = {
        run / f"{name}{suffix}": run / f"{name}_{number}{suffix}"
        for name, suffix in RECORDS
        if (run / f"{name}{suffix}").exists()
    }
    for record, kept in names.items():
        record.rename(kept)
    try:
        yield
    except BaseException:
        if not (run / OPTIONS).exists():
            for record, kept in names.items():
                kept.replace(record)
        raise
