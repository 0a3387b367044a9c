"""Procedural scenes with exact depth: the embedded data set, made on the fly."""

from typing import get_args

import numpy as np

from datamodules.base import DepthDataModule, Split
from datamodules.batch import Frame, Frames
from datamodules.errors import DataError
from datamodules.protocols import Protocol, full
from datamodules.raycasting.raycast import camera_rays
from datamodules.raycasting.scenes import (
    ROOM_CAMERA,
    STREET_CAMERA,
    CameraRange,
    Domain,
    build,
)
from datamodules.raycasting.shading import photograph, shade
from datamodules.transforms import Augment

MAX_DEPTH_M: dict[Domain, float] = {"rooms": 10.0, "streets": 80.0}
CAMERAS: dict[Domain, CameraRange] = {"rooms": ROOM_CAMERA, "streets": STREET_CAMERA}
STREAMS: dict[Split, int] = {"train": 0, "val": 1, "test": 2}


class SyntheticFrames(Frames):
    """Frames of one domain and split; frame i is a function of (seed, split, i).

    Args:
        domain: `rooms` or `streets`.
        split: Which independent stream of scenes.
        length: How many frames.
        size: (rows, cols) in pixels.
        seed: Of the scenes.
        camera: Ranges that each frame's camera is drawn from.
        cache: Keep rendered frames in memory (about 7 bytes a pixel).
    """

    def __init__(
        self,
        domain: Domain,
        split: Split,
        length: int,
        size: tuple[int, int],
        seed: int = 0,
        camera: CameraRange | None = None,
        cache: bool = False,
    ) -> None:
        self.domain, self.split, self.length, self.size = domain, split, length, size
        self.seed = seed
        self.camera = camera or CAMERAS[domain]
        self._cached: dict[int, Frame] | None = {} if cache else None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Frame:
        if self._cached is None:
            return self._render(index)
        if index not in self._cached:
            self._cached[index] = self._render(index)
        return self._cached[index]

    def _render(self, index: int) -> Frame:
        rows, cols = self.size
        stream = (self.seed, STREAMS[self.split], get_args(Domain).index(self.domain))
        rng = np.random.default_rng((*stream, index))
        view = build(self.domain, self.camera, rng)
        fov = np.radians(rng.uniform(*self.camera.fov_deg))
        focal_px = cols / 2 / np.tan(fov / 2)
        intrinsics = np.array(
            [[focal_px, 0, (cols - 1) / 2], [0, focal_px, (rows - 1) / 2], [0, 0, 1]],
            np.float32,
        )
        rays = camera_rays(rows, cols, intrinsics, view.rotation)
        rgb, hits = shade(view.scene, view.origin, rays)
        exposure, noise = (
            rng.uniform(*self.camera.exposure),
            rng.uniform(*self.camera.noise),
        )
        depth = np.where(np.isfinite(hits.distance), hits.distance, 0)
        return Frame(
            photograph(rgb.reshape(rows, cols, 3), exposure, noise, rng),
            depth.reshape(rows, cols).astype(np.float32),
            f"{self.domain}/{self.split}/{index:05d}",
            intrinsics,
        )


class SyntheticDataModule(DepthDataModule):
    """Ray-cast `rooms` (0.5-10 m) or `streets` (2-80 m): no files, exact depth.

    Args:
        domain: Which kind of scene.
        n_train: Training frames.
        n_val: Validation frames, from an independent stream of scenes.
        n_test: Test frames, from a third one.
        image_size: Size of the frames and of the network's input (rows, cols).
        batch_size: Frames per process and step.
        num_workers: Processes that render frames; 0 renders in the main one.
        seed: Of scenes, order and augmentation.
        camera: Ranges of the cameras; null takes the domain's own.
        cache: Keep rendered frames in memory; needs num_workers 0 to be of use.
        augment: What training does to a frame.
    """

    def __init__(
        self,
        domain: Domain = "rooms",
        n_train: int = 256,
        n_val: int = 64,
        n_test: int = 64,
        image_size: tuple[int, int] = (126, 168),
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        camera: CameraRange | None = None,
        cache: bool = False,
        augment: Augment = Augment(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(
            image_size, MAX_DEPTH_M[domain], batch_size, num_workers, seed, augment
        )
        if cache and num_workers > 0:
            raise DataError(
                f"cache keeps frames in the main process, but num_workers is "
                f"{num_workers}; use cache: false or num_workers: 0"
            )
        self.domain, self.camera, self.cache = domain, camera, cache
        self.lengths: dict[Split, int] = {
            "train": n_train,
            "val": n_val,
            "test": n_test,
        }

    @property
    def protocol(self) -> Protocol:
        return full(self.max_depth)

    def frames(self, split: Split) -> Frames:
        return SyntheticFrames(
            self.domain,
            split,
            self.lengths[split],
            self.image_size,
            self.seed,
            self.camera,
            self.cache,
        )
