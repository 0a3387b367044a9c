"""Invented rooms, table tops and streets that look like photographs, with exact depth.

Richer than `synthetic`, and slower to make: what a base is trained on that is to see
photographs. Frames may be kept in a folder, so that they are made once.
"""

from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from datamodules.base import DepthDataModule, Split
from datamodules.batch import DepthItem, Frame, Frames
from datamodules.errors import DataError
from datamodules.files.whole import whole_file
from datamodules.loading import BatchedSampler, ResumableLoader, TrainDataset
from datamodules.protocols import Protocol, full
from datamodules.rendering.film import Film
from datamodules.rendering.pictures import PLACES, VERSION, picture
from datamodules.sizes import check_image_size
from datamodules.transforms import Augment, TrainTransform

Size = tuple[int, int]
MAX_DEPTH_M = 80.0
STREAMS: dict[Split, int] = {"train": 0, "val": 1, "test": 2}
UPRIGHT = (0.45, 0.2, 0.35)
"""Parts of rooms, table tops and streets."""
WIDE = (0.25, 0.05, 0.7)
"""Likewise of pictures more than 1.7 times as wide as high."""


class WorldFrames(Frames):
    """Frame i is a function of (seed, split, size, i).

    Args:
        split: Which independent stream of worlds.
        length: How many frames.
        sizes: (rows, cols) in pixels of frames 0, 1, 2, and so on in turn.
        seed: Of the worlds.
        folder: Where made frames are kept, and found again; None keeps none.
    """

    def __init__(
        self,
        split: Split,
        length: int,
        sizes: Sequence[Size],
        seed: int = 0,
        folder: Path | None = None,
    ) -> None:
        self.split, self.length, self.seed = split, length, seed
        self.sizes, self.folder = tuple(sizes), folder

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Frame:
        rows, cols = size = self.sizes[index % len(self.sizes)]
        if self.folder is None:
            return self._made(index, size)
        name = f"v{VERSION}/{self.seed}/{self.split}/{rows}x{cols}/{index:06d}.npz"
        path = self.folder / name
        if path.is_file():
            return self._kept(path, index)
        frame = self._made(index, size)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part, part.open("wb") as file:
            assert frame.intrinsics is not None
            np.savez(file, rgb=frame.image, depth=frame.depth, k=frame.intrinsics)
        return frame

    def _made(self, index: int, size: Size) -> Frame:
        rng = np.random.default_rng((self.seed, STREAMS[self.split], *size, index))
        shares = WIDE if size[1] > 1.7 * size[0] else UPRIGHT
        place = PLACES[int(rng.choice(len(PLACES), p=shares))]
        rgb, depth, intrinsics = picture(place, size, Film(), rng)
        return Frame(rgb, depth, self._name(index), intrinsics)

    def _kept(self, path: Path, index: int) -> Frame:
        try:
            with path.open("rb") as file, np.load(file) as found:
                rgb, depth, k = found["rgb"], found["depth"], found["k"]
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise DataError(
                f"{path} is no frame that was kept here ({error}); delete it"
            ) from None
        return Frame(rgb, depth, self._name(index), k)

    def _name(self, index: int) -> str:
        return f"worlds/{self.split}/{index:06d}"


class WorldsDataModule(DepthDataModule):
    """Rooms, table tops and streets like photographs, rendered as they are asked for.

    Args:
        n_train: Training frames.
        n_val: Validation frames, from an independent stream of worlds.
        n_test: Test frames, from a third one.
        image_size: Size of the frames that are scored, and of one in `shapes`.
        shapes: Sizes (rows, cols) of the training frames, in turn; each batch has one
            of them. Best about as many patches each.
        folder: Where made frames are kept for the next epoch, or run: 170 KB each at
            126x168. null makes each again.
        batch_size: Frames per process and step.
        num_workers: Processes that render frames; a frame takes about 0.1 s of a core.
        seed: Of worlds, order and augmentation.
        augment: What training does to a frame beside its camera's own faults.
    """

    def __init__(
        self,
        n_train: int = 30000,
        n_val: int = 240,
        n_test: int = 240,
        image_size: Size = (126, 168),
        shapes: Sequence[Size] = (
            *((126, 168), (126, 168), (168, 126)),
            *((98, 224), (98, 308)),
        ),
        folder: str | None = None,
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
        augment: Augment = Augment(colour=0.0),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(
            image_size, MAX_DEPTH_M, batch_size, num_workers, seed, augment
        )
        self.shapes = [(int(rows), int(cols)) for rows, cols in shapes]
        if not self.shapes:
            raise DataError("shapes is empty; give at least one, such as [[126, 168]]")
        self.folder = None if folder is None else Path(folder).expanduser()
        self.lengths: dict[Split, int] = {
            "train": n_train,
            "val": n_val,
            "test": n_test,
        }

    @property
    def protocol(self) -> Protocol:
        return full(self.max_depth)

    @property
    def frame_sizes(self) -> list[Size]:
        return self.shapes

    def setup(self, stage: str) -> None:
        super().setup(stage)
        for size in self.shapes:
            check_image_size(size, self.image_input.patch_px, "shapes")

    def frames(self, split: Split) -> Frames:
        sizes = self.shapes if split == "train" else [self.image_size]
        return WorldFrames(split, self.lengths[split], sizes, self.seed, self.folder)

    def train_set(self) -> TrainDataset:
        whole = super().train_set()
        whole.transform = ShapedTransform(whole.transform, self.shapes)
        return whole

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled batches, each of one shape."""
        if getattr(self.trainer, "overfit_batches", 0) and len(set(self.shapes)) > 1:
            raise DataError(
                "trainer.overfit_batches takes frames in their order, whose shapes "
                "differ; give one in data.shapes, too"
            )
        if len(set(self.shapes)) == 1:
            return super().train_dataloader()
        sampler = ShapeSampler(
            self.lengths["train"],
            self.shapes,
            self.batch_size,
            *self._replicas(),
            seed=self.seed,
        )
        return self.resumable(self.train_set(), sampler)


class ShapedTransform(TrainTransform):
    """A training transform that keeps each frame in the shape that it was made in."""

    def __init__(self, like: TrainTransform, shapes: Sequence[Size]) -> None:
        self.by_shape = {
            size: TrainTransform(
                size,
                like.protocol,
                like.augment,
                like.seed,
                like.window,
                like.image_input,
            )
            for size in shapes
        }

    def __call__(self, frame: Frame, epoch: int, index: int) -> DepthItem:
        rows, cols = frame.depth.shape
        return self.by_shape[rows, cols](frame, epoch, index)


class ShapeSampler(BatchedSampler):
    """Batches of one shape each.

    What is left of each shape beyond whole batches is left out, another part each
    epoch.

    Args:
        length: Frames, whose shapes are `shapes` in turn.
        shapes: Of frames 0, 1, 2, and so on.
        batch_size: Per process.
        replicas: Processes.
        rank: Of this one.
        seed: Of the order.
    """

    def __init__(
        self,
        length: int,
        shapes: Sequence[Size],
        batch_size: int,
        replicas: int,
        rank: int,
        seed: int,
    ) -> None:
        super().__init__(range(length), replicas, rank, seed=seed)  # type: ignore[arg-type]
        which = [shapes[i % len(shapes)] for i in range(length)]
        self.batch = batch_size * replicas
        self.of_shape = [
            [i for i, own in enumerate(which) if own == size]
            for size in dict.fromkeys(shapes)
        ]
        batches = sum(len(own) // self.batch for own in self.of_shape)
        if not batches:
            raise DataError(
                f"{length} frames in {len(self.of_shape)} shapes fill no batch of "
                f"{self.batch}; ask for more, or give fewer data.shapes"
            )
        self.num_samples, self.total_size = batches * batch_size, batches * self.batch

    def batches(self, generator: torch.Generator) -> list[list[int]]:
        found: list[list[int]] = []
        for own in self.of_shape:
            order = torch.randperm(len(own), generator=generator).tolist()
            for k in range(len(own) // self.batch):
                some = order[k * self.batch : (k + 1) * self.batch]
                found.append([own[i] for i in some])
        return found
