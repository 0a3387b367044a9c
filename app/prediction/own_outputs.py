"""Which files predict.py wrote itself, so that it does not predict them again."""

import json
from functools import cache
from pathlib import Path

from app.prediction.formats import ENDINGS
from app.prediction.ledger import LEDGER


class OwnOutputs:
    """Tells outputs from pictures.

    Outputs are what any `predictions.json` records, in its folder and below; what lies
    in the output folder, where that is inside of what is looked through; and, where
    pictures and outputs share a folder, `a.jpg.depth.png` beside `a.jpg`.

    Args:
        folder: Where this run writes to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._recorded = cache(_recorded)

    def __call__(self, file: Path, looked_in: Path) -> bool:
        """Whether a file, found by looking through a folder, is an output."""
        file, looked_in = file.absolute(), looked_in.absolute()
        inside = self.folder in file.parents
        if inside and looked_in in self.folder.parents:
            return True
        if inside and _beside_its_picture(file):
            return True
        return any(file in self._recorded(parent) for parent in file.parents)


def _recorded(folder: Path) -> frozenset[Path]:
    """Outputs that a folder's ledger names."""
    try:
        content = json.loads((folder / LEDGER).read_text())
        entries = content["files"].values()
        return frozenset(folder / name for e in entries for name in e["outputs"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # No ledger, or not one of ours: it records nothing.
        return frozenset()


def _beside_its_picture(file: Path) -> bool:
    return any(
        file.name.endswith(ending)
        and file.with_name(file.name[: -len(ending)]).is_file()
        for ending in ENDINGS.values()
    )
