"""A check of the data: what train.py check prints, and a glance before fit."""

import sys
from functools import singledispatch

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from app.errors import fail
from datamodules.base import DepthDataModule
from datamodules.folder import FolderDataModule
from datamodules.prompts import prompt_of
from datamodules.splits import Split
from datamodules.survey import Survey, survey, suspicions, unread, unusable
from datamodules.task_data import TaskDataModule
from datamodules.text_base import TextDataModule
from models.errors import OptionError

SPLITS: tuple[Split, ...] = ("train", "val", "test")
BINS, BAR = 10, 40
HELD_OUT = 16
"""Frames for validation and test that are looked at, at most."""
GOOD = "good to train on"
GLANCE_S = 1.5
"""Time for the glance at the start of a run: nobody waits for it."""


class DataCheck(Callback):
    """Look at some training frames before the first step, and say what is suspicious.

    Args:
        frames: At most so many, spread over the set; 0 for none.
    """

    def __init__(self, frames: int = 24) -> None:
        self.frames = frames

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if self.frames < 1 or not trainer.is_global_zero:
            return
        if not isinstance(data, DepthDataModule):
            return
        parts = data.parts
        for name, part in parts.items():
            frames, seconds = self.frames // len(parts), GLANCE_S / len(parts)
            found = survey(part.opened("train"), frames, part.max_depth, seconds)
            for line in _said(found, part) + _on_both_sides(part):
                named = f"{name}: {line}" if name else line
                print(f"warning: {named} (train.py check says more)", file=sys.stderr)


@singledispatch
def check_data(data: TaskDataModule, frames: int) -> None:
    """Print what the data look like, and end with one line if they cannot be used.

    Args:
        data: Of any kind; of mixed data each source is looked at.
        frames: At most so many are looked at, for training.
    """
    raise OptionError(f"there is no check of {type(data).__name__}; train on them")


@check_data.register
def _(data: DepthDataModule, frames: int) -> None:
    data.prepare_data()
    for name, part in data.parts.items():
        if name:
            print(f"source {name}")
        _check_part(part, frames)


@check_data.register
def _(data: TextDataModule, frames: int) -> None:
    for part in SPLITS:
        for task, rows in data.rows(part).items():
            asked = [row for row in rows if row.options]
            text = f"{part:<6}{len(rows):>8} rows, {len(asked)} with options"
            lengths = [len(prompt_of(r, data.prompt, training=True)) for r in rows]
            longest = f"prompts up to {max(lengths)} characters"
            print(": ".join(filter(None, (task, f"{text}, {longest}"))))
    if data.missing:
        print(f"suspicious: there is no {', '.join(data.missing)} to test on")
    print("verdict: " + ("look at what is suspicious" if data.missing else GOOD))


def _check_part(data: DepthDataModule, frames: int) -> None:
    print(f"{type(data).__name__}, max_depth {data.max_depth:g} m")
    surveys = {}
    for split in SPLITS:
        count = frames if split == "train" else min(frames, HELD_OUT)
        surveys[split] = survey(data.frames(split), count, data.max_depth)
        print(_row(split, surveys[split]))
    for line in _depths(surveys["train"], data.max_depth):
        print(line)
    strange: dict[str, None] = {}
    for split, found in surveys.items():
        why = unusable(found)
        if why is None and found.unreadable and data.on_error == "error":
            why = (
                f"{unread(found)[0]}; it would stop a run: mend it, or leave such "
                "frames out with --data.on_error skip"
            )
        if why is not None:
            fail(f"the {split} frames cannot be used: {why}")
        strange |= dict.fromkeys(_said(found, data))
    strange |= dict.fromkeys(_on_both_sides(data))
    for line in strange:
        print(f"suspicious: {line}")
    print("verdict: " + ("look at what is suspicious" if strange else GOOD))


def _said(found: Survey, data: DepthDataModule) -> list[str]:
    scale = getattr(data, "depth_scale", None)
    return unread(found) + suspicions(found, data.max_depth, scale)


def _on_both_sides(data: DepthDataModule) -> list[str]:
    both = data.trained_and_held_out() if isinstance(data, FolderDataModule) else []
    if not both:
        return []
    return [
        f"{len(both)} pictures are trained on and held out as well "
        f"({', '.join(both[:3])}): scores will look better than they are; keep them "
        "apart in the table, or give another val_root"
    ]


def _row(split: str, found: Survey) -> str:
    sizes = ", ".join(
        f"{cols}x{rows} px" + (f" ({times})" if len(found.sizes) > 1 else "")
        for (rows, cols), times in found.sizes.most_common(3)
    )
    more = len(found.sizes) - 3
    sizes += f" and {more} more sizes" if more > 0 else ""
    read = found.looked_at - len(found.unreadable)
    known = {0: "no intrinsics", read: "intrinsics"}.get(
        found.with_intrinsics, f"intrinsics of {found.with_intrinsics}"
    )
    return f"{split:<6}{found.frames:>8} frames, {found.looked_at} looked at: " + (
        f"{sizes}, {known}" if read else "none can be read"
    )


def _depths(found: Survey, max_depth: float) -> list[str]:
    """Numbers and a histogram of the training frames' depths."""
    if not found.known:
        return []
    low, median, far, high = np.quantile(found.depths, (0, 0.5, 0.99, 1))
    edges = np.linspace(0, max_depth, BINS + 1)
    shares = np.histogram(found.depths, [*edges, np.inf])[0] / len(found.depths)
    lines = [
        f"depth of the training frames: {low:.3g} to {high:.3g} m, median "
        f"{median:.3g}, 99 % below {far:.3g}; unknown "
        f"{1 - found.known / found.pixels:.1%} of the pixels, beyond max_depth "
        f"{found.beyond / found.known:.1%} of the known"
    ]
    for i, share in enumerate(shares):
        name = f"{edges[i]:7.4g} to {edges[i + 1]:.4g} m" if i < BINS else "    beyond"
        bar = "#" * round(BAR * share)
        lines.append(f"{name:<20}{share:>7.1%}  {bar}".rstrip())
    return lines
