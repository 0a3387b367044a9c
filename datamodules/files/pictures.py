"""Which pictures and video frames a user's words mean."""

import glob
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.errors import DataError
from datamodules.files.images.decoding import IMAGE_SUFFIXES
from datamodules.files.images.videos import VIDEO_SUFFIXES, probe_video
from datamodules.files.lists.listing import files_below
from datamodules.files.lists.picture_lists import read_picture_list

NAMED_SUFFIXES = (".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k")
"""Pictures that cannot be read, but shall be named where a folder holds them."""
SUFFIXES = (*IMAGE_SUFFIXES, *NAMED_SUFFIXES, *VIDEO_SUFFIXES)
LeaveOut = Callable[[Path, Path], bool]
"""Whether a file, found by looking through a folder, is not meant."""


@dataclass(frozen=True)
class Picture:
    """One picture to predict."""

    path: Path
    name: str
    """Under which its outputs are written, relative to the output folder."""
    frame: int | None = None
    """Number of a video's frame, from 0; None for a photograph."""
    frame_size: tuple[int, int] | None = None
    """(rows, cols) of a video's frames; None for a photograph."""


@dataclass(frozen=True)
class Found:
    """What a user's words mean."""

    pictures: list[Picture]
    left_out: int
    """Number of files that are not meant."""


def check_exist(given: Sequence[str]) -> None:
    """Refuse what is no file, no folder and no pattern.

    Raises:
        DataError: Naming it.
    """
    for start in given:
        path = Path(start)
        if not (path.exists() or path.is_symlink() or glob.has_magic(start)):
            raise DataError(
                f"{start} does not exist; give images, videos, folders, a pattern or "
                "a .txt list"
            )


def visible_files(folder: Path) -> list[Path]:
    """All files in a folder and below, in order, without hidden ones and folders.

    macOS leaves `._photo.jpg` and others `.thumbnails/` beside pictures, and what is
    being written has a passing name with a dot.

    Raises:
        DataError: If a folder may not be looked into.
    """
    return [folder / name for name in files_below(folder)]


def find_images(
    given: Sequence[str], leave_out: LeaveOut = lambda file, folder: False
) -> Found:
    """Every picture that is named, in order.

    Names of outputs are paths below a folder that was given; of files, patterns and
    lists, below the deepest folder that all of the files, or of one pattern or list,
    have in common.

    Args:
        given: Image and video files, folders (looked through recursively), patterns
            with `*`, or `.txt` lists of such, as `read_picture_list` reads them.
        leave_out: Which files are not meant.

    Raises:
        DataError: If one does not exist, nothing was found, or two pictures would be
            written to one name.
    """
    check_exist(given)
    alone = _common_folder(Path(start) for start in given if _is_alone(start))
    found: list[Picture] = []
    left_out: set[Path] = set()
    for start in given:
        path = Path(start)
        files = _files(start)
        root = alone if _is_alone(start) else path
        if not _is_alone(start) and not path.is_dir():
            root = _common_folder(files)
        looked_in = path if path.is_dir() else _before_pattern(start)
        for file in files:
            if leave_out(file, looked_in):
                left_out.add(file)
            else:
                found += _pictures(file, os.path.relpath(file, root))
    if not found:
        raise DataError(
            f"no images in {', '.join(given)}; files must end in {', '.join(SUFFIXES)}"
            + (f" (predictions left out: {len(left_out)})" if left_out else "")
        )
    owners: dict[str, Path] = {}
    for picture in found:
        first = owners.setdefault(picture.name, picture.path)
        if first.absolute() != picture.path.absolute():
            raise DataError(
                f"{first} and {picture.path} would both be written as {picture.name}; "
                "give their common folder, or run twice with different outputs"
            )
    unique = {picture.name: picture for picture in found}
    return Found(list(unique.values()), len(left_out))


def _is_alone(start: str) -> bool:
    """Whether a word means one picture or video."""
    path = Path(start)
    there = path.is_file() or path.is_symlink()
    return there and not path.is_dir() and path.suffix.lower() != ".txt"


def _files(start: str) -> list[Path]:
    """Files that one word means; what is missing, where it should be."""
    path = Path(start)
    if path.is_dir():
        return [f for f in visible_files(path) if f.suffix.lower() in SUFFIXES]
    if path.is_file() and path.suffix.lower() == ".txt":
        return [file for line in read_picture_list(path) for file in _files(str(line))]
    if path.is_file() or path.is_symlink() or not glob.has_magic(start):
        return [path]
    matches = sorted(map(Path, glob.iglob(start, recursive=True)))  # noqa: PTH207
    inside = {file for m in matches if m.is_dir() for file in _files(str(m))}
    plain = {match for match in matches if not match.is_dir()}
    pictures = {match for match in plain if match.suffix.lower() in SUFFIXES}
    return sorted(inside | (pictures or plain))


def _common_folder(files: Iterable[Path]) -> Path:
    folders = [str(file.parent.absolute()) for file in files]
    return Path(os.path.commonpath(folders)) if folders else Path()


def _before_pattern(start: str) -> Path:
    """The folder that a pattern looks through, or that a file lies in."""
    path = Path(start).parent
    while glob.has_magic(str(path)):
        path = path.parent
    return path


def _pictures(path: Path, name: str) -> list[Picture]:
    name = Path(name).as_posix()
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        return [Picture(path, name)]
    count, size = probe_video(path)
    # Reading the first frame of a video without frames will say what is wrong.
    return [Picture(path, f"{name}/{i:06d}", i, size) for i in range(max(count, 1))]
