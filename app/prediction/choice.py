"""Which of several adapters each picture has, as a user says it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.errors import DataError
from datamodules.files.lists.delimited import open_delimited
from datamodules.files.pictures import Picture

COLUMNS = ("image", "adapter")
NAMED = 3
"""So many of what does not fit are named."""


@dataclass(frozen=True)
class Choice:
    """Where several adapters are, and who chooses among them."""

    adapters: str | None = None
    adapter: str | None = None
    adapter_of: str | None = None
    route: bool = False

    def __post_init__(self) -> None:
        ways = {
            "--adapter": self.adapter,
            "--adapter-of": self.adapter_of,
            "--route": self.route,
        }
        given = [way for way, value in ways.items() if value]
        if len(given) > 1:
            raise DataError(
                f"{' and '.join(given)} both choose adapters; give one of them"
            )
        if self.adapter_of is not None and not Path(self.adapter_of).is_file():
            raise DataError(f"--adapter-of {self.adapter_of}: there is no such file")

    @property
    def made(self) -> bool:
        """Whether anything says which adapter a picture has."""
        return bool(self.adapter or self.adapter_of or self.route)


@dataclass(frozen=True)
class Table:
    """What `--adapter-of` says: an adapter, or None for the base, for each picture."""

    path: Path
    adapters: dict[str, str | None]
    """By picture, as the table calls it."""

    @property
    def names(self) -> list[str]:
        """Of all adapters in it, each once."""
        return [name for name in dict.fromkeys(self.adapters.values()) if name]

    @property
    def sha256(self) -> str:
        """Equal for tables that say the same."""
        text = json.dumps(self.adapters, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def of(self, pictures: Sequence[Picture]) -> list[str | None]:
        """The adapter of each picture.

        A table may call a picture as predictions.json does, or by its path, absolute,
        or relative to the table or the current folder; a video, all of its frames.

        Raises:
            DataError: Naming pictures that it does not have, or that there are not.
        """
        used: set[str] = set()
        found: list[str | None] = []
        unnamed: list[str] = []
        resolved = {
            str(place.resolve()): image
            for image in self.adapters
            for place in (Path(image), self.path.parent / image)
        }
        for picture in pictures:
            image = picture.name
            if image not in self.adapters:
                image = resolved.get(str(picture.path.resolve()), "")
            if image in self.adapters:
                used.add(image)
                found.append(self.adapters[image])
            else:
                unnamed.append(picture.name)
        if unnamed:
            raise DataError(
                f"{self.path} has no line for {len(unnamed)} of {len(pictures)} "
                f"pictures ({', '.join(unnamed[:NAMED])}); give each one its adapter, "
                "empty for the base"
            )
        if strange := [image for image in self.adapters if image not in used]:
            raise DataError(
                f"{self.path} names {len(strange)} pictures that are not among those "
                f"to predict ({', '.join(strange[:NAMED])}); give them, too, or remove "
                "their lines"
            )
        return found


def read_table(path: Path) -> Table:
    """A table with the columns `image` and `adapter`, in any delimiter.

    Raises:
        DataError: Naming the line that cannot be used.
    """
    source = open_delimited(path, COLUMNS, optional="")
    image, adapter = (source.columns.index(name) for name in COLUMNS)
    adapters: dict[str, str | None] = {}
    for number, cells in source.rows:
        name = cells[image]
        if not name:
            raise DataError(f"{path} line {number} names no image")
        own = cells[adapter] or None
        if adapters.setdefault(name, own) != own:
            raise DataError(
                f"{path} line {number} gives {name} the adapter {own or 'base'!r}, and "
                f"an earlier line {adapters[name] or 'base'!r}; keep one of them"
            )
    if not adapters:
        raise DataError(f"{path} has no line below its first one")
    return Table(path, adapters)
