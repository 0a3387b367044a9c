"""Which frames train and which are held out: by frame, by folder, by a column."""

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import DataError
from datamodules.files.pairs import Labels, Pairs

Split = Literal["train", "val", "test"]
SPLIT_COLUMN = "split"
_SAYS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_IN_PLACE: dict[Split, tuple[Split, ...]] = {
    "train": ("train",),
    "val": ("val", "test"),
    "test": ("test", "val"),
}


@dataclass(frozen=True)
class SplitBy:
    """What keeps frames together when a part of them is held out."""

    kind: Literal["frame", "folder", "column"]
    column: str = SPLIT_COLUMN

    @classmethod
    def parse(cls, text: str) -> "SplitBy":
        """From `frame`, `folder` or `column:NAME`.

        Raises:
            DataError: If it is none of them.
        """
        found = re.fullmatch(r"(frame|folder)|column:\s*(\S.*?)\s*", text)
        if not found:
            raise DataError(
                f"split_by {text!r} is not known; use frame, folder, or column:NAME of "
                "a CSV"
            )
        if found[2]:
            return cls("column", found[2])
        return cls("frame" if found[1] == "frame" else "folder")


def says_split(labels: Labels, column: str, source: str) -> bool:
    """Whether a column's words are those of a split, and not of groups to be split.

    Raises:
        DataError: If some are and others not, or the column is `split` itself.
    """
    strange = [name for name in labels.names if name.lower() not in _SAYS]
    if strange and (column.lower() == SPLIT_COLUMN or len(strange) < len(labels.names)):
        raise DataError(
            f"{source} says {', '.join(strange[:3])} in the column {column!r}; use "
            "train, val and test, or --data.split_by frame"
        )
    return not strange


def said(pairs: Pairs, labels: Labels, split: Split, source: str) -> Pairs:
    """The frames that a column says belong to a split.

    Where there are none for validation those of the test are taken, and the other way
    round.

    Raises:
        DataError: If there are none then either.
    """
    wanted = _IN_PLACE[split]
    meant = [_SAYS[name.lower()] for name in labels.names]
    for one in wanted:
        codes = [code for code, name in enumerate(meant) if name == one]
        chosen = np.flatnonzero(np.isin(labels.codes, codes))
        if len(chosen):
            return pairs.chosen(chosen)
    raise DataError(
        f"{source} says {', '.join(labels.names)} of its frames, and so has none for "
        f"{' or '.join(wanted)}; fill in the column, or use --data.split_by frame"
    )


def held_out(
    count: int, fraction: float, seed: int, groups: Labels | None
) -> NDArray[np.bool_]:
    """Which of some frames are held out, at random but always the same.

    Whole groups, drawn one by one as long as each brings the held-out part closer to
    the fraction: at least one, and never all.

    Args:
        count: Of frames.
        fraction: Of them that is to be held out.
        seed: Of the draw.
        groups: Frames of one group stay together; None draws them one by one.

    Raises:
        DataError: If there is nothing to hold out, or nothing would be left.
    """
    chosen = np.zeros(count, np.bool_)
    wanted = round(count * fraction)
    random = np.random.default_rng(seed)
    if groups is None:
        if not 0 < wanted < count:
            raise DataError(
                f"has {count} frames, of which val_fraction {fraction} would hold out "
                f"{wanted}; at least one must train and one validate: add frames, "
                "change val_fraction or give val_root"
            )
        chosen[random.permutation(count)[:wanted]] = True
        return chosen
    sizes = np.bincount(groups.codes, minlength=len(groups.names))
    # By name, so that the order of the frames does not matter.
    present = [int(code) for code in np.flatnonzero(sizes)]
    present.sort(key=lambda code: groups.names[code])
    if len(present) < 2:
        raise DataError(
            f"has its {count} frames in one group ({groups.names[present[0]] or '.'}); "
            "to keep groups together there must be two: use --data.split_by frame, or "
            "give val_root"
        )
    taken: list[int] = []
    total = 0
    for place in random.permutation(len(present)):
        code = present[place]
        closer = abs(total + sizes[code] - wanted) < abs(total - wanted)
        if closer and len(taken) < len(present) - 1:
            taken.append(code)
            total += int(sizes[code])
    if not taken:
        taken = [min(present, key=lambda code: sizes[code])]
    return np.isin(groups.codes, taken)


def on_both_sides(labels: Labels, chosen: NDArray[np.bool_]) -> list[str]:
    """Groups of which some frames are held out and others not."""
    both = np.intersect1d(labels.codes[chosen], labels.codes[~chosen])
    return [labels.names[code] or "." for code in both]
