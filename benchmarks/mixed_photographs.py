"""Photographs of two places: an adapter each, apart or in one run, or one for both.

    python -m benchmarks.mixed_photographs --frames runs/photo_comparison/frames

FRAMES is what `benchmarks.method_comparison --photos` stored. LAVA at 1.5 % of the
base's parameters is trained three ways, in crops of one size, with the same number of
frames of each place: `apart`, a run for each; `bank`, both adapters in one run with a
router (`MixedModule`); `one`, a single adapter on the frames of both. A way's rate is
chosen on validation frames, with a seed of its own. What is printed is delta1 on test
frames, the mean over the seeds and Student's 95 % interval, also of the difference from
`apart`, paired by seed; `routed` is the part of them that the router gives to their own
adapter.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

from lightning.pytorch import Trainer, seed_everything
from tqdm import tqdm

from benchmarks.comparison.cell import Cell, Settings, build, quiet, silent_trainer
from benchmarks.comparison.methods import METHODS
from benchmarks.comparison.plan import best_rate
from benchmarks.comparison.reporting.markdown import plus_minus, table
from benchmarks.comparison.reporting.statistics import difference, estimate
from benchmarks.comparison.runs import mean
from benchmarks.comparison.tasks import PHOTOS, Task, TaskData
from benchmarks.stopwatch import machine, write_json
from datamodules import MixedDataModule
from datamodules.base import DepthDataModule, Split
from datamodules.batch import Frame, Frames
from datamodules.transforms import Augment
from models import DepthAnythingModule, MixedModule
from models.depth_module import DepthModule

CROP = (84, 112)
LAVA, SHARE = "lava", 0.015
RATES = (3e-3, 1e-2, 3e-2, 1e-1)
TUNING_SEED = 1000
WAYS = ("apart", "bank", "one")
Scores = dict[str, float]


class Cropped(TaskData):
    """One place, trained on in crops, scored on whole frames."""

    def __init__(
        self, folder: Path, task: Task, settings: Settings, n_train: int, seed: int
    ) -> None:
        size, batch = task.image_size or settings.image_size, settings.batch_size
        super().__init__(folder, task, size, batch, n_train, seed)
        self.augment = Augment(crop=CROP)


class Both(Frames):
    """The frames of one place after those of another."""

    def __init__(self, parts: Sequence[Frames]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: int) -> Frame:
        for part in self.parts:
            if index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError(index)


class OneForBoth(Cropped):
    """Training frames of all places as if they were of one."""

    def __init__(self, places: Sequence[Cropped], settings: Settings) -> None:
        first = places[0]
        given = first.folder, first.task, settings, first.n_train, first.seed
        super().__init__(*given)
        self.places, self.batch_size = places, first.batch_size * len(places)

    def frames(self, split: Split) -> Frames:
        return Both([place.frames(split) for place in self.places])


@dataclass(frozen=True)
class Given:
    """What all runs have in common."""

    folder: Path
    """With the stored frames."""
    n_train: int
    """Of each place."""
    out: Path


def trained(
    way: str, seed: int, lr: float, settings: Settings, given: Given
) -> list[tuple[Trainer, DepthModule, DepthDataModule]]:
    """What a way trained, each module with the data that it is scored on."""
    places = {
        task.name: Cropped(given.folder, task, settings, given.n_train, seed)
        for task in PHOTOS
    }
    seed_everything(seed, verbose=False)

    def module(data: Cropped, *_: object) -> DepthAnythingModule:
        cell = Cell(data.task.name, LAVA, given.n_train, seed, lr, SHARE)
        return build(cell, settings, METHODS[LAVA], data.task)[0]

    def fit(module: DepthModule, data: DepthDataModule) -> Trainer:
        trainer = silent_trainer(settings, settings.steps, settings.steps)
        trainer.fit(module, datamodule=data)
        return trainer

    if way == "apart":
        modules = [module(data) for data in places.values()]
        pairs = [*zip(modules, places.values(), strict=True)]
        return [(fit(module, data), module, data) for module, data in pairs]
    if way == "one":
        both = OneForBoth([*places.values()], settings)
        single = module(both)
        trainer = fit(single, both)
        return [(trainer, single, data) for data in places.values()]
    bank = MixedModule(
        {name: data.max_depth for name, data in places.items()},
        {name: data.image_size for name, data in places.items()},
        {name: partial(module, data) for name, data in places.items()},
    )
    size = settings.batch_size * len(places)
    mixed = MixedDataModule(dict(places), dict.fromkeys(places, 1.0), size)
    return [(fit(bank, mixed), bank, mixed)]


def scored(
    way: str, seed: int, lr: float, split: Split, settings: Settings, given: Given
) -> Scores:
    """delta1 of each place after training a way; of a bank also what was routed."""
    scores: Scores = {}
    for trainer, module, data in trained(way, seed, lr, settings, given):
        score = trainer.validate if split == "val" else trainer.test
        for found in score(module, datamodule=data, verbose=False):
            if isinstance(data, Cropped):
                scores[data.task.name] = float(found[f"{split}/delta1"])
                continue
            for key, value in found.items():
                _, *source, name = key.split("/")
                if name == "routed" or (source and name == "delta1"):
                    scores[source[0] if source else name] = float(value)
    return scores


def finished(
    way: str, seed: int, lr: float, split: Split, settings: Settings, given: Given
) -> Scores:
    """From disk where it is, else run and written there."""
    lengths = f"n{given.n_train}-steps{settings.steps}"
    file = given.out / f"{way}-{lengths}-lr{lr:g}-{split}-seed{seed}.json"
    if not file.is_file():
        write_json(file, scored(way, seed, lr, split, settings, given))
    content: Scores = json.loads(file.read_text())
    return content


def main(arguments: list[str] | None = None) -> None:
    """Train the three ways, and print the table."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.mixed_photographs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--frames", type=Path, required=True)
    add("--out", type=Path, default=Path("runs/mixed_photographs"))
    add("--seeds", type=int, default=5)
    add("--n-train", type=int, default=104, help="of each place")
    add("--steps", type=int, default=Settings().steps)
    asked = parser.parse_args(arguments)
    quiet()
    settings = Settings("mini", "tiny-worlds", steps=asked.steps)
    given = Given(asked.frames, asked.n_train, asked.out)
    asked.out.mkdir(parents=True, exist_ok=True)
    best: dict[str, float] = {}
    for way in tqdm(WAYS, "choosing rates", disable=None):
        tried = {
            lr: finished(way, TUNING_SEED, lr, "val", settings, given) for lr in RATES
        }
        best[way] = best_rate(
            {lr: mean(s[task.name] for task in PHOTOS) for lr, s in tried.items()}
        )
    found: dict[str, list[Scores]] = {way: [] for way in WAYS}
    for seed, way in tqdm([*product(range(asked.seeds), WAYS)], disable=None):
        found[way].append(finished(way, seed, best[way], "test", settings, given))
    about = machine(on_cuda=False)
    print(f"{about['date']}, {about['cpu']}, torch {about['torch']}\n\n{report(found)}")


def report(found: Mapping[str, Sequence[Scores]]) -> str:
    """A row for each way."""
    names = [task.name for task in PHOTOS]
    rows = []
    for way, runs in found.items():
        cells = [plus_minus(estimate([run[name] for run in runs])) for name in names]
        gaps = [
            difference([run[n] for run in runs], [run[n] for run in found[WAYS[0]]])
            for n in names
        ]
        cells += ["" if way == WAYS[0] else plus_minus(g, sign=True) for g in gaps]
        routed = [run["routed"] for run in runs if "routed" in run]
        rows.append([way, *cells, f"{mean(routed):.3f}" if routed else ""])
    heads = ["", *names, *(f"{name} - {WAYS[0]}'s" for name in names), "routed"]
    return table(heads, rows)


if __name__ == "__main__":
    main()
