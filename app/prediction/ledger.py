"""`predictions.json`: what was predicted from what, valid at every moment."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datamodules.errors import DataError
from datamodules.files.whole import write_json

LEDGER = "predictions.json"
EVERY_S = 2.0
SHARE = 20.0
"""Between two writes pass at least this many times what the last one took."""

Entry = dict[str, Any]


class Ledger:
    """Entries by picture, written as they come; one file a process, merged at the end.

    Args:
        folder: Where the outputs are.
        header: What holds for all pictures; a folder has one.
        rank: This process.
        world_size: Number of processes.

    Raises:
        DataError: If the folder's entries are of another header.
    """

    def __init__(
        self,
        folder: Path,
        header: Mapping[str, Any],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.folder, self.header = folder, dict(header)
        self.path = folder / (
            LEDGER if world_size == 1 else f".predictions.{rank}.json"
        )
        self.entries: dict[str, Entry] = {}
        self._written = time.monotonic()
        self._took = 0.0

    def done(self, formats: tuple[str, ...]) -> set[str]:
        """Names whose outputs in all of these formats are there already."""
        found: dict[str, Entry] = {}
        for path in self._files():
            content = _read(path)
            if content["header"] != self.header:
                raise DataError(
                    f"{self.folder} holds predictions of another model or with other "
                    "options; give another --output, or --overwrite"
                )
            found |= content["files"]
        kept = {
            name: entry
            for name, entry in found.items()
            if not entry["error"]
            and all((self.folder / output).is_file() for output in entry["outputs"])
        }
        self.entries = kept
        return {n for n, entry in kept.items() if set(formats) <= set(entry["formats"])}

    def note(self, name: str, entry: Entry) -> None:
        """Add a picture's entry, on disk within seconds."""
        self.entries[name] = entry
        wait = max(EVERY_S, SHARE * self._took)
        if time.monotonic() - self._written > wait:
            self.write()

    def write(self) -> None:
        """Put all entries on disk, whole or not at all."""
        began = time.monotonic()
        content = {"header": self.header, "files": self.entries}
        write_json(self.path, content, indent=1)
        self._written = time.monotonic()
        self._took = self._written - began

    def merge(self) -> None:
        """Gather all processes' entries into one file; by one process, at the end."""
        for path in self._files():
            self.entries |= _read(path)["files"]
        self.path = self.folder / LEDGER
        self.write()
        for path in self.folder.glob(".predictions.*.json"):
            path.unlink()

    def _files(self) -> list[Path]:
        """The oldest first: what a process wrote is newer than what was merged."""
        merged = self.folder / LEDGER
        parts = sorted(self.folder.glob(".predictions.*.json"))
        return [merged, *parts] if merged.is_file() else parts


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
        assert isinstance(content["files"], dict)
    except (OSError, ValueError, KeyError, AssertionError, TypeError):
        raise DataError(
            f"{path} is not a list of predictions; remove it or give another --output"
        ) from None
    return dict(content)
