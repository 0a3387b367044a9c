"""Write predictions beside the network's work, and keep the ledger."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from numpy.typing import NDArray

from app.prediction.ledger import Entry, Ledger
from app.prediction.options import Format
from app.prediction.predictor import PhotographBatch
from datamodules.errors import DataError
from datamodules.files.depth_writers import (
    Colormap,
    write_colour,
    write_exr,
    write_npy,
    write_pfm,
    write_ply,
    write_png16,
)
from datamodules.files.pictures import Picture

ENDINGS: dict[Format, str] = {
    "png": ".depth.png",
    "npy": ".depth.npy",
    "pfm": ".depth.pfm",
    "exr": ".depth.exr",
    "ply": ".ply",
    "color": ".color.png",
}
THREADS, WAITING = 2, 8


@dataclass(frozen=True)
class Camera:
    """Intrinsics given on the command line, in pixels of the picture itself."""

    fx: float | None = None
    fy: float | None = None
    cx: float | None = None
    cy: float | None = None
    fov_deg: float | None = None
    """Horizontal field of view."""

    def intrinsics(
        self, size: tuple[int, int], exif_focal_px: float | None
    ) -> tuple[float, float, float, float] | None:
        """fx, fy, cx, cy of a picture (rows, cols); None where nothing tells."""
        rows, cols = size
        focal_px = exif_focal_px
        if self.fov_deg is not None:
            focal_px = cols / 2 / float(np.tan(np.radians(self.fov_deg) / 2))
        fx = focal_px if self.fx is None else self.fx
        if fx is None:
            return None
        fy = fx if self.fy is None else self.fy
        cx = (cols - 1) / 2 if self.cx is None else self.cx
        cy = (rows - 1) / 2 if self.cy is None else self.cy
        return fx, fy, cx, cy


class DepthWriter(BasePredictionWriter):
    """Write each prediction in the chosen formats, in threads of their own.

    A picture's own suffix stays in the names, so that a.jpg and a.png keep apart.

    Args:
        folder: Where to; the pictures' folders are mirrored below it.
        pictures: What the batches' indices mean.
        focals_px: Each one's focal length by EXIF.
        formats: What to write.
        max_depth: Metres; the far end of the colours.
        png_scale: Units per metre of 16-bit PNGs.
        colormap: Of colour pictures.
        camera: For point clouds.
        ledger: Where every picture is noted.
    """

    def __init__(
        self,
        folder: Path,
        pictures: Sequence[Picture],
        focals_px: Sequence[float | None],
        formats: tuple[Format, ...],
        max_depth: float,
        png_scale: int,
        colormap: Colormap,
        camera: Camera,
        ledger: Ledger,
    ) -> None:
        super().__init__(write_interval="batch")
        self.folder, self.pictures, self.focals_px = folder, pictures, focals_px
        self.formats, self.max_depth, self.png_scale = formats, max_depth, png_scale
        self.colormap, self.camera, self.ledger = colormap, camera, ledger
        self._threads = ThreadPoolExecutor(THREADS)
        self._waiting: list[tuple[str, Future[Entry]]] = []
        self._began = time.monotonic()

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._began = time.monotonic()

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: PhotographBatch,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Hand a batch to the threads, and wait for older ones if there are many."""
        seconds = (time.monotonic() - self._began) / len(batch["index"])
        for index, pixels, error, depth in zip(
            batch["index"], batch["pixels"], batch["error"], prediction, strict=True
        ):
            name = self.pictures[index].name
            metres = depth.float().numpy()
            future = self._threads.submit(
                self._write, index, pixels, metres, error, seconds
            )
            self._waiting.append((name, future))
        self._collect(WAITING)

    def finish(self) -> None:
        """Wait for everything that was handed over, and put the ledger on disk."""
        self._collect(0)
        self._threads.shutdown()
        self.ledger.write()

    def _collect(self, leave: int) -> None:
        while len(self._waiting) > leave:
            name, future = self._waiting.pop(0)
            self.ledger.note(name, future.result())

    def _write(
        self,
        index: int,
        pixels: NDArray[np.uint8],
        depth: NDArray[np.float32],
        error: str,
        seconds: float,
    ) -> Entry:
        picture = self.pictures[index]
        entry: Entry = {
            "source": str(picture.path),
            "formats": [],
            "outputs": [],
            "error": error,
            "seconds": round(seconds, 4),
        }
        if error:
            return entry
        size = (depth.shape[0], depth.shape[1])
        intrinsics = self.camera.intrinsics(size, self.focals_px[index])
        if wrong := int(np.count_nonzero(~np.isfinite(depth))):
            entry["error"] = (
                f"the prediction is not finite in {wrong} of {depth.size} pixels; try "
                "--precision 32-true, or other weights"
            )
            return entry
        known = depth
        entry |= {
            "size": [size[1], size[0]],
            "depth_min": float(known.min()) if known.size else None,
            "depth_median": float(np.median(known)) if known.size else None,
            "depth_max": float(known.max()) if known.size else None,
            "intrinsics": intrinsics,
        }
        for kind in self.formats:
            path = self.folder / f"{picture.name}{ENDINGS[kind]}"
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._write_one(kind, path, pixels, depth, intrinsics)
            except (DataError, OSError) as problem:
                entry["error"] = str(problem)
                return entry
            entry["formats"].append(kind)
            entry["outputs"].append(str(path.relative_to(self.folder)))
        return entry

    def _write_one(
        self,
        kind: Format,
        path: Path,
        pixels: NDArray[np.uint8],
        depth: NDArray[np.float32],
        intrinsics: tuple[float, float, float, float] | None,
    ) -> None:
        if kind == "png":
            write_png16(path, depth, self.png_scale)
        elif kind == "npy":
            write_npy(path, depth)
        elif kind == "pfm":
            write_pfm(path, depth)
        elif kind == "exr":
            write_exr(path, depth)
        elif kind == "color":
            write_colour(path, depth, self.max_depth, self.colormap)
        elif intrinsics is None:
            raise DataError(
                f"{path.name}: the picture has no focal length in its EXIF data; give "
                "--fx (pixels) or --fov (degrees)"
            )
        else:
            write_ply(path, depth, pixels, intrinsics)
