"""Which pictures and video frames a user's words mean."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from datamodules.errors import DataError
from datamodules.files.depth_files import IMAGE_SUFFIXES

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")


@dataclass(frozen=True)
class Picture:
    """One picture to predict."""

    path: Path
    name: str
    """Under which its outputs are written, relative to the output folder."""
    frame: int | None = None
    """Number of a video's frame, from 0; None for a photograph."""


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


def find_images(given: Sequence[str]) -> list[Picture]:
    """Every picture that is named, in order.

    Args:
        given: Image and video files, folders (looked through recursively), patterns
            with `*`, or `.txt` lists of such, relative to the list's own folder.

    Raises:
        DataError: If one does not exist, nothing was found, or two pictures would be
            written to one name.
    """
    check_exist(given)
    found: list[Picture] = []
    for start in given:
        path = Path(start)
        if path.is_dir():
            inside = sorted(path.rglob("*"))
            for file in inside:
                if file.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES):
                    found += _pictures(file, file.relative_to(path).as_posix())
        elif path.suffix.lower() == ".txt" and path.is_file():
            lines = [line.strip() for line in path.read_text().splitlines()]
            found += find_images([str(path.parent / line) for line in lines if line])
        elif path.is_file() or path.is_symlink():
            found += _pictures(path, path.name)
        else:
            matches = sorted(map(Path, glob.iglob(start, recursive=True)))  # noqa: PTH207
            found += find_images([str(match) for match in matches]) if matches else []
    if not found:
        raise DataError(
            f"no images in {', '.join(given)}; files must end in "
            f"{', '.join((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))}"
        )
    owners: dict[str, Path] = {}
    for picture in found:
        first = owners.setdefault(picture.name, picture.path)
        if first != picture.path:
            raise DataError(
                f"{first} and {picture.path} would both be written as {picture.name}; "
                "give their common folder, or run twice with different outputs"
            )
    unique = {picture.name: picture for picture in found}
    return list(unique.values())


def _pictures(path: Path, name: str) -> list[Picture]:
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        return [Picture(path, name)]
    video = cv2.VideoCapture(str(path))
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
    video.release()
    if count < 1:
        return [Picture(path, f"{name}/000000", 0)]  # reading it will say what is wrong
    return [Picture(path, f"{name}/{i:06d}", i) for i in range(count)]
