"""What is adapted to: frames of a domain and camera, rendered once and kept on disk."""

import itertools
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from datamodules.base import DepthDataModule, Split
from datamodules.batch import DepthBatch, DepthItem, Frame, Frames
from datamodules.files.whole import whole_file
from datamodules.loading import collate
from datamodules.protocols import Protocol, full
from datamodules.raycasting.scenes import CameraRange, Domain
from datamodules.synthetic import MAX_DEPTH_M, SyntheticFrames
from datamodules.transforms import Augment, TrainTransform

CHUNK = 32
"""Frames that one job renders."""

LOW_WIDE_DARK = CameraRange(
    fov_deg=(85, 105),
    height_m=(0.2, 0.5),
    pitch_deg=(-4, 16),
    roll_deg=(-8, 8),
    exposure=(0.3, 0.6),
    noise=(0.05, 0.1),
)
"""A small robot's camera: wide, near the floor, looking up a little, in bad light."""


@dataclass(frozen=True)
class Task:
    """What is adapted to: one domain under one camera, or real frames."""

    name: str
    domain: Domain
    camera: CameraRange | None = None
    source: str = "rooms"
    """The task whose test frames tell what was forgotten."""
    range_m: float | None = None
    """In place of the domain's."""
    image_size: tuple[int, int] | None = None
    """(rows, cols) in place of the comparison's."""

    @property
    def max_depth(self) -> float:
        return self.range_m or MAX_DEPTH_M[self.domain]


SOURCE = Task("rooms", "rooms")
"""What the base was pretrained on."""
TARGETS = (
    Task("streets", "streets"),
    Task("rooms_camera", "rooms", LOW_WIDE_DARK),
)
PHOTOS = (
    Task("photos_outdoors", "streets", None, "photos_indoors", 80.0, (98, 322)),
    Task("photos_indoors", "rooms", None, "photos_outdoors", 80.0, (98, 126)),
)
"""Real frames of two places, stored by `photographs.py`; each is the other's source."""
TASKS = {task.name: task for task in (SOURCE, *TARGETS, *PHOTOS)}
REAL = "real_"


def real_task(data_set: str) -> Task:
    """A data set of real frames, of rooms' range; they are stored by `real.py`."""
    return Task(f"{REAL}{data_set}", "rooms")


def task_named(name: str) -> Task:
    """A task by its name, real ones too."""
    return real_task(name.removeprefix(REAL)) if name.startswith(REAL) else TASKS[name]


class StoredFrames(Frames):
    """Rendered frames in two arrays on disk, mapped into memory."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.images, self.depths = (
            np.load(path, mmap_mode="r") for path in _paths(folder, name)
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Frame:
        image, depth = np.array(self.images[index]), np.array(self.depths[index])
        return Frame(image, depth, f"{self.name}/{index:05d}")


class Chosen(Frames):
    """Some of other frames, in an order of their own."""

    def __init__(self, frames: Frames, indices: NDArray[np.intp]) -> None:
        self.frames, self.indices = frames, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Frame:
        return self.frames[int(self.indices[index])]


class TaskData(DepthDataModule):
    """A task's stored frames; each seed trains on its own `n_train` of the pool.

    The frames of a smaller `n_train` are among those of a larger one.
    """

    def __init__(
        self,
        folder: Path,
        task: Task,
        image_size: tuple[int, int],
        batch_size: int,
        n_train: int,
        seed: int,
    ) -> None:
        size = task.image_size or image_size
        super().__init__(size, task.max_depth, batch_size, 0, seed, Augment())
        self.folder, self.task, self.n_train = folder, task, n_train

    @property
    def protocol(self) -> Protocol:
        return full(self.max_depth)

    def frames(self, split: Split) -> Frames:
        frames = StoredFrames(self.folder, f"{self.task.name}_{split}")
        if split != "train":
            return frames
        order = np.random.default_rng(self.seed).permutation(len(frames))
        return Chosen(frames, order[: self.n_train])

    def plain_items(self) -> Iterator[DepthItem]:
        """The training frames without augmentation, each once, in a fixed order."""
        frames, plain = self.frames("train"), Augment(flip=0, colour=0)
        transform = TrainTransform(self.image_size, self.protocol, plain, self.seed)
        for i in range(len(frames)):
            item = transform(frames[i], 0, i)
            item["skipped"] = ""
            yield item

    def plain_batches(self, count: int) -> list[DepthBatch]:
        """Some minibatches of those; frames come again where there are too few."""
        items = itertools.cycle(self.plain_items())
        return [
            collate(list(itertools.islice(items, self.batch_size)))
            for _ in range(count)
        ]


def store(
    folder: Path,
    task: Task,
    lengths: dict[Split, int],
    image_size: tuple[int, int],
    executor: Executor,
) -> Iterator[int]:
    """Render what is not there yet; yields the frames of each finished job."""
    for split in get_args(Split):
        n = lengths.get(split, 0)
        paths = _paths(folder, f"{task.name}_{split}")
        shape = (n, *image_size)
        if n == 0 or all(_has_shape(path, shape) for path in paths):
            continue
        starts = range(0, n, CHUNK)
        jobs = executor.map(
            _render,
            *zip(*((task, split, i, n, image_size) for i in starts), strict=True),
        )
        chunks = []
        for chunk in jobs:
            chunks.append(chunk)
            yield len(chunk[0])
        images, depths = (np.concatenate(part) for part in zip(*chunks, strict=True))
        save_frames(folder, f"{task.name}_{split}", images, depths)


def save_frames(
    folder: Path,
    name: str,
    images: NDArray[np.uint8],
    depths: NDArray[np.float32],
) -> None:
    """Write what `StoredFrames` reads, each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: tuple[NDArray[Any], ...] = (images, depths)
    for path, array in zip(_paths(folder, name), arrays, strict=True):
        with whole_file(path) as part, part.open("wb") as file:
            np.save(file, array)


def _render(
    task: Task, split: Split, start: int, length: int, image_size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    frames = SyntheticFrames(task.domain, split, length, image_size, camera=task.camera)
    some = [frames[i] for i in range(start, min(start + CHUNK, length))]
    return np.stack([f.image for f in some]), np.stack([f.depth for f in some])


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}_images.npy", folder / f"{name}_depths.npy"


def _has_shape(path: Path, shape: tuple[int, ...]) -> bool:
    return path.is_file() and np.load(path, mmap_mode="r").shape[:3] == shape
