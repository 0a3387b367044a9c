"""Files and folders that appear whole or not at all, with the mode that any other has.

What a killed process leaves has a name that nothing reads, `.NAME.part` or
`.NAME.*.part`, and goes when NAME is written again.
"""

import glob
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from datamodules.errors import DataError

LOCK = "lock"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A passing name to write to, which becomes `path` when the block ends well.

    Raises:
        DataError: If the file cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        # Made here, the file has the umask's mode, whatever the writer would choose.
        part.touch()
        mode = part.stat().st_mode
        yield part
        part.chmod(mode)
        part.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path} cannot be written ({reason})") from None
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a whole file."""
    with whole_file(path) as part:
        part.write_bytes(content)


def write_json(path: Path, content: Mapping[str, object], indent: int = 2) -> None:
    """Write a whole JSON file, its folder made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(content, indent=indent) + "\n").encode())


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A passing folder to write into, whose files become those of `folder` at the end.

    A new or empty folder gets them in one step. Into another one they move one by one,
    replacing those of the same names; others stay. All have the umask's mode. A link
    is followed, also to a folder that is not there yet.

    Raises:
        DataError: If a folder cannot be made there.
    """
    asked, folder = folder, folder.resolve()
    prefix, suffix = f".{folder.name}.", ".part"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f"{glob.escape(prefix)}*{suffix}"):
            _remove_abandoned(left)
        passing = tempfile.TemporaryDirectory(suffix, prefix, folder.parent)
    except OSError as error:
        raise DataError(f"{asked} cannot be written ({error.strerror})") from None
    with passing as scratch, (Path(scratch) / LOCK).open("w") as lock:
        _taken(lock)
        new = Path(scratch) / "new"
        new.mkdir()
        yield new
        mode = Path(lock.name).stat().st_mode
        for file in filter(Path.is_file, new.rglob("*")):
            # Libraries write some for their owner alone.
            file.chmod(mode)
        if not _in_one_step(new, folder):
            for file in sorted(new.rglob("*")):
                target = folder / file.relative_to(new)
                if file.is_dir():
                    target.mkdir(exist_ok=True)
                else:
                    _move(file, target)


def _in_one_step(new: Path, folder: Path) -> bool:
    """Make a folder `folder`, unless that holds something."""
    if not folder.exists():
        new.rename(folder)
        return True
    if any(folder.iterdir()) or folder == Path.cwd():
        return False
    shutil.copymode(folder, new)
    try:
        new.rename(folder)
    except OSError:
        # Windows, and where a disk of its own is mounted.
        return False
    return True


def _move(file: Path, target: Path) -> None:
    try:
        file.replace(target)
    except OSError:
        # Onto another disk.
        with whole_file(target) as part:
            shutil.copyfile(file, part)


def _remove_abandoned(scratch: Path) -> None:
    """Remove a passing folder whose process has ended."""
    try:
        with (scratch / LOCK).open("a") as lock:
            if _taken(lock):
                shutil.rmtree(scratch, ignore_errors=True)
    except OSError:
        # Somebody else's, or gone by now.
        return


def _taken(lock: IO[str]) -> bool:
    """Lock a file until this process closes it or ends; False if that is not possible.

    Windows has no such locks: there, what a killed process left is left.
    """
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Nobody else who asks for it writes into a folder until this one has ended.

    Raises:
        DataError: If somebody does.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise DataError(
            f"another run is writing into {folder}; wait for its end, or give another "
            "folder"
        ) from None
    except OSError:
        # A disk over the network that has no locks: nobody can be asked there.
        os.close(handle)
        yield
        return
    try:
        yield
    finally:
        os.close(handle)
