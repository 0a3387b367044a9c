"""Which files there are, asked a folder at a time: a look-up a file is slow."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from datamodules.errors import DataError

_FEW = 16
"""So many files of one folder are asked for one by one: the folder may be huge."""


def missing_files(root: str, names: Iterable[str]) -> list[int]:
    """Which of these paths are no files, by their place.

    Args:
        root: What they are relative to, where they are.
        names: Paths.
    """
    folders: dict[str, list[tuple[int, str]]] = {}
    for place, path in enumerate(names):
        cut = path.rfind("/") + 1
        folders.setdefault(path[:cut], []).append((place, path[cut:]))
    missing = []
    for relative, wanted in folders.items():
        folder, there = Path(root, relative), set[str]()
        if len(wanted) > _FEW:
            there = {entry.name for entry in _entries(folder) if _is(entry.is_file)}
        missing += [
            place
            for place, name in wanted
            # Asked again: names may be equal to the file system, not letter by letter.
            if name not in there and not (folder / name).is_file()
        ]
    return sorted(missing)


def files_below(folder: Path) -> Iterator[str]:
    """Paths of all files below a folder, relative to it; what begins with a dot not.

    Links to folders are followed, unless they lead back to where they were met; links
    to nothing are files that cannot be read.

    Raises:
        DataError: If a folder may not be looked into.
    """
    yield from _below(str(folder), "", frozenset())


def folders_in(folder: Path) -> list[str]:
    """Names of a folder's folders, sorted; those that begin with a dot not."""
    entries = _entries(folder)
    names = (e.name for e in entries if not e.name.startswith(".") and _is(e.is_dir))
    return sorted(names)


def _below(
    folder: str, prefix: str, above: frozenset[tuple[int, int]]
) -> Iterator[str]:
    status = Path(folder).stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in sorted(_entries(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if _is(entry.is_dir):
            yield from _below(entry.path, f"{prefix}{entry.name}/", above | {here})
        elif _is(entry.is_file) or entry.is_symlink():
            yield prefix + entry.name


def _is(kind: Callable[[], bool]) -> bool:
    """What `is_dir` or `is_file` says; of a link to itself it raises."""
    try:
        return kind()
    except OSError:
        return False


def _entries(folder: str | Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(f"{folder} cannot be looked into ({error.strerror})") from None
