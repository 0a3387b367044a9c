"""Files that appear whole or not at all, with the mode that any other file has."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from datamodules.errors import DataError


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


def write_bytes(path: Path, content: bytes) -> None:
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

    A new folder appears in one step. Into one that exists the files move one by one,
    replacing those of the same names; others stay. All have the umask's mode. A link
    is followed, also to a folder that is not there yet.

    Raises:
        DataError: If a folder cannot be made there.
    """
    asked, folder = folder, folder.resolve() if folder.is_symlink() else folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        passing = tempfile.TemporaryDirectory(
            prefix=f".{folder.name}-", dir=folder.parent
        )
    except OSError as error:
        raise DataError(f"{asked} cannot be written ({error.strerror})") from None
    with passing as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        yield new
        probe = Path(scratch) / "probe"
        probe.touch()
        for file in filter(Path.is_file, new.rglob("*")):
            # Libraries write some for their owner alone.
            file.chmod(probe.stat().st_mode)
        if not folder.exists():
            new.rename(folder)
            return
        for file in sorted(new.rglob("*")):
            target = folder / file.relative_to(new)
            if file.is_dir():
                target.mkdir(exist_ok=True)
            else:
                shutil.move(file, target)
