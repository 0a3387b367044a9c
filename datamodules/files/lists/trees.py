"""Folders of pictures and folders of depth maps, found by their names."""

import os
import re
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import DataError
from datamodules.files.cameras import read_camera_file
from datamodules.files.depths.reading import DEPTH_SUFFIXES
from datamodules.files.images.decoding import IMAGE_SUFFIXES
from datamodules.files.lists import tum
from datamodules.files.lists.listing import files_below, folders_in
from datamodules.files.pairs import Pairs

IMAGE_FOLDERS = ("images", "image", "rgb", "color", "colour", "img", "imgs")
DEPTH_FOLDERS = (
    *("depths", "depth", "depth_gt", "gt_depth", "depths_gt", "depth_map"),
    *("depth_maps", "depthmap", "depthmaps", "depth_png", "depth_raw"),
)
_ROLE = r"(?:images?|rgb|colou?r|imgs?|depths?|depthmap)"
_ROLES = re.compile(rf"(?:^|(?<=/)){_ROLE}[_.-]|[_.-]{_ROLE}$", re.IGNORECASE)


def find_in_tree(
    root: Path,
    depth_scale: float,
    image_folder: str | None = None,
    depth_folder: str | None = None,
) -> Pairs:
    """All frames below a folder, in the order of their names.

    A folder that has one folder of pictures and one of depth maps (`rgb/` and `depth/`,
    `images/` and `depths/`, ...) or the lists of a TUM sequence is a scene; the root is
    one, or has scenes below it. Frames are matched by their path below the two, without
    suffix; where no two are equal, also without `rgb`, `depth` and the like before or
    behind a name. A scene's `camera.json`, or else the root's, has its intrinsics.

    Args:
        root: Where to look.
        depth_scale: Stored units per metre.
        image_folder: Name of the folders of pictures; None for any that is known.
        depth_folder: Likewise.

    Raises:
        DataError: If nothing is found, it cannot be told which folder is meant, or
            frames lack a partner.
    """
    names = _Names(image_folder, depth_folder)
    images: list[str] = []
    depths: list[str] = []
    cameras: list[NDArray[np.float32]] = []
    overall = read_camera_file(root)
    if overall is None:
        overall = np.full(4, np.nan, np.float32)
    scenes = names.scenes(root)
    sequences = [scene for scene in scenes if names.is_sequence(scene)]
    if sequences and depth_scale != tum.DEPTH_SCALE:
        warnings.warn(
            f"{sequences[0]} has the lists of a TUM RGB-D sequence, whose depth has "
            f"{tum.DEPTH_SCALE} units a metre; depth_scale is {depth_scale:g}",
            stacklevel=2,
        )
    for scene in scenes:
        prefix = "" if scene == root else f"{scene.relative_to(root).as_posix()}/"
        camera = read_camera_file(scene)
        if camera is None:
            camera = overall
        for image, depth in names.frames(scene):
            images.append(prefix + image)
            depths.append(prefix + depth)
            cameras.append(camera)
    return Pairs(root, images, depths, depth_scale, np.array(cameras, np.float32))


DEEPEST = 5
"""Levels of scenes below a root: a data set, a split, a place, a scene, a camera."""


class _Names:
    """What folders of pictures and of depth maps may be called."""

    def __init__(self, image: str | None, depth: str | None) -> None:
        self.given = image is not None or depth is not None
        self.image = IMAGE_FOLDERS if image is None else (image.rstrip("/"),)
        self.depth = DEPTH_FOLDERS if depth is None else (depth.rstrip("/"),)

    def scenes(self, root: Path) -> list[Path]:
        """The root itself, or the folders below it that are scenes."""
        if self._is_scene(root):
            return [root]
        halves: list[Path] = []
        found = self._in(root, 0, halves)
        if found:
            if halves:
                names = ", ".join(str(half.relative_to(root)) for half in halves[:3])
                more = ", ..." if len(halves) > 3 else ""
                warnings.warn(
                    f"{len(halves)} folders of {root} have pictures or depth maps "
                    f"alone and are left out: {names}{more}; call what they lack as "
                    "in the others, or say how with --data.image_folder and "
                    "--data.depth_folder",
                    stacklevel=2,
                )
            return found
        there = ", ".join(f"{name}/" for name in folders_in(root)[:8]) or "no folders"
        raise DataError(
            f"{root} has {there}; a data root has a folder of pictures "
            f"({', '.join(self.image)}) and one of depth maps "
            f"({', '.join(self.depth)}), itself or in folders of scenes, or is a CSV "
            "file; name others with --data.image_folder and --data.depth_folder"
        )

    def _in(self, folder: Path, depth: int, halves: list[Path]) -> list[Path]:
        """The scenes below a folder; adds those that have one of the two folders."""
        if depth == DEEPEST:
            return []
        found: list[Path] = []
        for name in folders_in(folder):
            below = folder / name
            if self._is_scene(below):
                found.append(below)
                continue
            scenes = self._in(below, depth + 1, halves)
            found += scenes
            if not scenes and any(_called(below, n) for n in (self.image, self.depth)):
                halves.append(below)
        return found

    def is_sequence(self, folder: Path) -> bool:
        """Whether a scene is matched by time; folders that are named are not."""
        return not self.given and tum.is_sequence(folder)

    def _is_scene(self, folder: Path) -> bool:
        return self.is_sequence(folder) or bool(
            _called(folder, self.image) and _called(folder, self.depth)
        )

    def frames(self, scene: Path) -> list[tuple[str, str]]:
        """Picture and depth of each frame, relative to the scene."""
        if self.is_sequence(scene):
            return tum.sequence_pairs(scene)
        image = _only(scene, self.image, "pictures", "image_folder")
        depth = _only(scene, self.depth, "depth maps", "depth_folder")
        images = _by_stem(scene / image, IMAGE_SUFFIXES)
        depths = _by_stem(scene / depth, DEPTH_SUFFIXES)
        if not images.keys() & depths.keys():
            images, depths = (
                _keyed(found.values(), scene / folder, _plain)
                for found, folder in ((images, image), (depths, depth))
            )
        alone = sorted(images.keys() ^ depths.keys())
        if alone:
            raise DataError(
                f"{scene}: {len(alone)} of {len(images.keys() | depths.keys())} frames "
                f"have an image or a depth but not both: {', '.join(alone[:3])}; "
                f"frames are matched by their path below {image}/ and {depth}/, "
                "without suffix"
            )
        return [
            (f"{image}/{images[stem]}", f"{depth}/{depths[stem]}")
            for stem in sorted(images)
        ]


def _called(scene: Path, names: tuple[str, ...]) -> list[str]:
    """The scene's folders of such names, which may be paths."""
    if len(names) == 1:
        return [*names] if (scene / names[0]).is_dir() else []
    return [name for name in folders_in(scene) if name.lower() in names]


def _only(scene: Path, names: tuple[str, ...], what: str, option: str) -> str:
    found = _called(scene, names)
    if len(found) > 1:
        raise DataError(
            f"{scene} has {', '.join(f'{name}/' for name in found)}, any of which may "
            f"be the {what}; say which one with --data.{option}"
        )
    return found[0]


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, str]:
    files = [name for name in files_below(folder) if _suffix(name) in suffixes]
    if not files:
        raise DataError(f"{folder} has no files that end in {', '.join(suffixes)}")
    return _keyed(files, folder, _stem)


def _keyed(
    files: Iterable[str], folder: Path, key: Callable[[str], str]
) -> dict[str, str]:
    found: dict[str, str] = {}
    for file in files:
        name = key(file)
        if name in found:
            raise DataError(
                f"{folder / found[name]} and {file} have the same stem; which one "
                "belongs to the frame cannot be told: remove one"
            )
        found[name] = file
    return found


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path is slow


def _stem(name: str) -> str:
    return name[: len(name) - len(_suffix(name))]


def _plain(name: str) -> str:
    """A name without suffix and what it says of its part: `rgb_0001`, `0001_depth`."""
    return _ROLES.sub("", _stem(name))
