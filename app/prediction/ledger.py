"""`predictions.json`: what was predicted from what.

While a run goes on, each process appends a line a picture to a journal of its own,
`.predictions.RUN.RANK.jsonl`, whose first line is the header. Process 0 folds the
journals into `predictions.json` at the end, or in the next run where a run was killed.
"""

import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

from app.prediction.header import DEFAULTS
from datamodules.errors import DataError
from datamodules.files.pictures import Picture
from datamodules.files.whole import whole_file

LEDGER = "predictions.json"
JOURNAL = re.compile(r"\.predictions\.(\d+)\.(\d+)\.jsonl")

Entry = dict[str, Any]
Header = dict[str, Any]
T = TypeVar("T")


class Ledger:
    """Entries by picture, on disk as they come. Threads may share one.

    What is later holds: journals follow `predictions.json` in the order of their runs.
    A header that differs, which --overwrite alone lets a run have, makes stale all that
    was before it. A line that was cut off is a picture that is still to be done.

    No process may note anything before all of them have asked what is done.

    Args:
        folder: Where the outputs are.
        header: What holds for all pictures; a folder has one. None stands for what a
            run does not say, and differs from nothing.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(
        self,
        folder: Path,
        header: Mapping[str, Any],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.folder, self.header = folder, dict(header)
        self.rank, self.world_size = rank, world_size
        self.path = folder / LEDGER
        runs = (_run_and_rank(path)[0] for path in _journals(self.folder))
        self.run = 1 + max(runs, default=0)
        self._before: dict[str, str] = {}
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()
        self._errors: dict[str, str] | None = None

    def done(
        self, formats: tuple[str, ...], pictures: Iterable[Picture] = ()
    ) -> set[str]:
        """Names whose outputs in all of these formats are there already.

        Args:
            formats: Which.
            pictures: Of the run. One that was changed since its entry is not done.

        Raises:
            DataError: If the folder's entries are of another header or of other
                pictures of the same names, or unreadable.
        """
        wanted, paths = set(formats), {p.name: p.path for p in pictures}
        others: list[str] = []

        def missing(name: str, entry: Entry) -> str | None:
            whole = not entry["error"] and wanted <= set(entry["formats"])
            if name in paths and entry["outputs"]:
                now = whose(paths[name], entry["source"], entry.get("stamp"))
                if now == "another":
                    others.append(name)
                if now != "same":
                    return None
            return "" if whole else json.dumps(entry)

        header, entries = self._read(_journals(self.folder), missing)
        if changes := _differences(header, self.header):
            raise DataError(
                f"{self.folder} holds predictions of another model or with other "
                f"options ({'; '.join(changes)}); give another --output, or --overwrite"
            )
        if others:
            raise DataError(
                f"{self.folder} holds predictions of other pictures that have the same "
                f"names, {len(others)} in all, the first {others[0]}; give another "
                "--output, or --overwrite"
            )
        self._before = {name: text for name, text in entries.items() if text}
        return {name for name, text in entries.items() if text == ""}

    def note(self, name: str, entry: Entry) -> None:
        """Put a picture's entry on disk, with its older outputs in other formats.

        Raises:
            DataError: If the journal cannot be written.
        """
        with self._lock:
            if before := self._before.pop(name, None):
                entry = _with_older_formats(entry, json.loads(before))
            if self._file is None:
                self._begin()
            self._append({"name": name, "entry": entry})

    def close(self) -> None:
        """End this process's journal, and fold it if there is no other process."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self.world_size == 1:
            self.fold()

    def fold(self) -> dict[str, str]:
        """Gather all into `predictions.json`; by one process, when all have closed.

        Returns:
            Every picture's error, "" for none.
        """
        if self._errors is None:
            self._errors = self._fold(_journals(self.folder))
        return self._errors

    def _begin(self) -> None:
        if self.rank == 0:
            killed = [
                p for p in _journals(self.folder) if _run_and_rank(p)[0] < self.run
            ]
            if killed:
                self._fold(killed)
        self._errors = None
        path = self.folder / f".predictions.{self.run}.{self.rank}.jsonl"
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise DataError(f"{path} cannot be written ({error.strerror})") from None
        self._append({"header": self.header})

    def _append(self, content: Mapping[str, object]) -> None:
        assert self._file is not None
        line = f"{json.dumps(content)}\n".encode()
        try:
            written, reason = self._file.write(line), "No space left on device"
        except OSError as error:
            written, reason = 0, str(error.strerror)
        if written != len(line):
            raise DataError(f"{self._file.name} cannot be written ({reason})")

    def _fold(self, journals: list[Path]) -> dict[str, str]:
        header, entries = self._read(journals, lambda _, e: (json.dumps(e), e["error"]))
        with whole_file(self.path) as part, part.open("w") as file:
            file.write(f'{{"header": {json.dumps(header or self.header)},\n"files": {{')
            for number, (name, (text, _)) in enumerate(entries.items()):
                file.write(f"{',' if number else ''}\n {json.dumps(name)}: {text}")
            file.write("\n}}\n")
        # The oldest first: folding once more what a kill leaves here changes nothing.
        for path in journals:
            path.unlink()
        return {name: error for name, (_, error) in entries.items()}

    def _read(
        self, journals: list[Path], kept: Callable[[str, Entry], T]
    ) -> tuple[Header, dict[str, T]]:
        """The header, and of every picture what is kept: little, for there are many."""
        header: Header = {}
        entries: dict[str, T] = {}
        outputs = _Outputs(self.folder)
        for path in [self.path, *journals]:
            found, pictures = _content(path)
            if _differences(header, found):
                header, entries = {}, {}
            header |= {
                k: v for k, v in found.items() if k not in header or v is not None
            }
            for name, entry in pictures:
                there = [
                    (kind, output)
                    for kind, output in zip(
                        entry["formats"], entry["outputs"], strict=True
                    )
                    if outputs.has(output)
                ]
                entry["formats"] = [kind for kind, _ in there]
                entry["outputs"] = [output for _, output in there]
                if there or entry["error"]:
                    entries[name] = kept(name, entry)
                else:
                    entries.pop(name, None)
        return header, entries


def stamp(path: Path) -> str | None:
    """By which a file is known again: its size and when it was written."""
    try:
        status = path.stat()
    except OSError:
        return None
    return f"{status.st_size} {status.st_mtime_ns}"


def whose(
    path: Path, source: str, stamped: str | None
) -> Literal["same", "changed", "another"]:
    """What a picture is to an entry of its name.

    Args:
        path: Of the picture.
        source: The entry's.
        stamped: Likewise, of when it was written; None of older programs.
    """
    here = os.path.abspath(path) == os.path.abspath(source)  # noqa: PTH100
    if stamped is None:
        return "same" if here else "another"
    if stamped == stamp(path):
        # A folder that was moved is the same; two files, both there, are not.
        moved = not Path(source).exists() or path.samefile(source)
        return "same" if here or moved else "another"
    return "changed" if here else "another"


def recorded_outputs(folder: Path) -> frozenset[Path] | None:
    """Outputs in a folder and below that its ledger or journals name; None without.

    Raises:
        DataError: If a file is not as this program writes it.
    """
    found = [path for path in (folder / LEDGER, *_journals(folder)) if path.is_file()]
    if not found:
        return None
    return frozenset(
        folder / output
        for path in found
        for _, entry in _content(path)[1]
        for output in entry["outputs"]
    )


def _journals(folder: Path) -> list[Path]:
    """The oldest first."""
    found = folder.glob(".predictions.*.jsonl")
    return sorted(filter(_run_and_rank, found), key=_run_and_rank)


class _Outputs:
    """Which files are there: a listing a folder, for asking one by one takes long."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listed: dict[str, frozenset[str]] = {}

    def has(self, output: str) -> bool:
        parent, _, name = output.rpartition("/")
        if parent not in self._listed:
            self._listed[parent] = self._listing(self.folder / parent)
        return name in self._listed[parent]

    @staticmethod
    def _listing(folder: Path) -> frozenset[str]:
        if not folder.is_dir():
            return frozenset()
        with os.scandir(folder) as found:
            return frozenset(file.name for file in found if file.is_file())


def _content(path: Path) -> tuple[Header, Iterable[tuple[str, Entry]]]:
    """Header and entries of one file; {} and none of one that is not there."""
    if path.name != LEDGER:
        lines = _lines(path)
        first = next(lines, {})
        return first.get("header", {}), (
            (line["name"], line["entry"]) for line in lines if "header" in first
        )
    if not path.is_file():
        return {}, ()
    try:
        content = json.loads(path.read_text())
        header, files = dict(content["header"]), dict(content["files"])
        for entry in files.values():
            assert len(entry["formats"]) == len(entry["outputs"])
            assert isinstance(entry["error"], str)
    except (OSError, ValueError, KeyError, AssertionError, TypeError):
        raise DataError(
            f"{path} is not a list of predictions; remove it or give another --output"
        ) from None
    return header, files.items()


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Those of a journal that are whole."""
    with path.open("rb") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                continue


def _differences(old: Header, new: Header) -> list[str]:
    """What two headers say that is not the same, in words; {} says nothing at all."""
    before = old and DEFAULTS | old
    return [
        f"{key} {before[key]}, now {value}"
        for key, value in new.items()
        if None not in (value, before.get(key)) and before[key] != value
    ]


def _with_older_formats(entry: Entry, older: Entry) -> Entry:
    pairs = dict(zip(older["formats"], older["outputs"], strict=True))
    pairs |= dict(zip(entry["formats"], entry["outputs"], strict=True))
    return entry | {"formats": list(pairs), "outputs": list(pairs.values())}


def _run_and_rank(path: Path) -> tuple[int, ...]:
    """() of what is no journal."""
    found = JOURNAL.fullmatch(path.name)
    return tuple(map(int, found.groups())) if found else ()
