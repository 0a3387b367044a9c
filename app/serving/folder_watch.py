"""Adapters as a folder has them: what several machines share is loaded by each."""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path

from app.serving.refusals import RefusedError
from app.serving.shelf import Shelf
from models.artefacts.opening import open_adapter
from models.artefacts.published.identity import ADAPTER_FILES

LOG = logging.getLogger("uvicorn.error")
PAIRS = (
    ("adapter.json", "adapter.safetensors"),
    ("adapter_config.json", "adapter_model.safetensors"),
)
"""What an adapter folder of ours, and one of PEFT's, consists of."""
Stamp = tuple[tuple[str, int, int], ...]
"""Name, size and time of change of each of an adapter's own files."""


class FolderWatch:
    """Loads adapters that are new or changed in a folder, and removes those that went.

    Args:
        shelf: Has at the beginning what the folder has.
        folder: With a folder of each adapter.
        seconds: Between one look and the next; 0 for none.
    """

    def __init__(self, shelf: Shelf, folder: Path, seconds: float) -> None:
        self.shelf, self.folder, self.seconds = shelf, folder, seconds
        self._known = self._stamps() if seconds else {}

    async def run(self) -> None:
        """Look again and again, until cancelled; what prevents a look is said once."""
        last = ""
        while self.seconds:
            await asyncio.sleep(self.seconds)
            said = ""
            try:
                await asyncio.to_thread(self.look)
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
            if said and said != last:
                LOG.error("adapters of %s stay as they were: %s", self.folder, said)
            last = said

    def look(self) -> None:
        """Let the shelf have what the folder has.

        What cannot be loaded is said once, and what was there before stays.
        """
        found = self._stamps()
        for name in self._known.keys() - found.keys():
            try:
                self.shelf.remove(name)
                LOG.info("adapter %s: its folder has gone, removed", name)
            except RefusedError:
                pass  # somebody else removed it
        for name, stamp in found.items():
            if self._known.get(name) == stamp:
                continue
            try:
                shelved = self.shelf.put(name, open_adapter(self.folder / name))
                LOG.info("adapter %s: generation %d", name, shelved.generation)
            except Exception as error:
                # Whatever is wrong with this one, others are looked at.
                LOG.error("adapter %s stays as it was: %s", name, error)
        self._known = found

    def _stamps(self) -> dict[str, Stamp]:
        found: dict[str, Stamp] = {}
        for kind in ADAPTER_FILES:
            for path in self.folder.glob(f"*/{kind}"):
                found[path.parent.name] = _stamp(path.parent)
        return found


def _stamp(folder: Path) -> Stamp:
    found = []
    for name in (name for pair in PAIRS for name in pair):
        # A file may not be there, or go while it is looked at.
        with suppress(OSError):
            stat = (folder / name).stat()
            found.append((name, stat.st_size, stat.st_mtime_ns))
    return tuple(found)
