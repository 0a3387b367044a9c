"""Which files predict.py wrote itself, so that it does not predict them again."""

from functools import cache
from pathlib import Path

from app.prediction.formats import ENDINGS
from app.prediction.ledger import recorded_outputs
from datamodules.errors import DataError
from datamodules.files.pictures import SUFFIXES


class OwnOutputs:
    """Tells outputs from pictures.

    Outputs are what any `predictions.json` or a killed run's journal records, in its
    folder and below, and what is called so there (`a.jpg.depth.png`) though a later run
    has forgotten it; what lies in the output folder, where that is inside of what is
    looked through; and, where pictures and outputs share a folder, `a.jpg.depth.png`
    beside `a.jpg`.

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
        recorded = [self._recorded(parent) for parent in file.parents]
        if _called_so(file.name) and any(found is not None for found in recorded):
            return True
        return any(file in found for found in recorded if found is not None)


def _recorded(folder: Path) -> frozenset[Path] | None:
    """Outputs that a folder's ledger names; None where there is no ledger of ours."""
    try:
        return recorded_outputs(folder)
    except (DataError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _called_so(name: str) -> bool:
    """Whether a name is that of a picture and an output's ending."""
    return any(
        name.endswith(ending) and name.removesuffix(ending).lower().endswith(SUFFIXES)
        for ending in ENDINGS.values()
    )


def _beside_its_picture(file: Path) -> bool:
    return any(
        file.name.endswith(ending)
        and file.with_name(file.name[: -len(ending)]).is_file()
        for ending in ENDINGS.values()
    )
