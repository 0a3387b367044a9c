"""Write predictions beside the network's work, and keep the ledger."""

import math
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from app.prediction.batch import PhotographBatch
from app.prediction.calibrator import Calibrator
from app.prediction.camera import Camera
from app.prediction.formats import ENDINGS, Look, check_finite, summary
from app.prediction.ledger import Entry, Ledger, stamp
from app.prediction.options import Format
from app.prediction.pixel_budget import PixelBudget
from app.prediction.predictor import at_size
from datamodules.errors import DataError
from datamodules.files.pictures import Picture

THREADS = 2
PIXELS = 24_000_000
"""Of pictures that are written at one time: about 9 bytes each."""
WAITING, WAITING_PIXELS = 8, 8 * 518 * 686
"""Of predictions that wait for a thread: no more than a batch."""


@dataclass(frozen=True)
class Predicted:
    """A picture and its prediction on the way to the disk."""

    index: int
    size: tuple[int, int]
    depth: Tensor
    """(h, w) at the network's size."""
    pixels: NDArray[np.uint8]
    error: str
    seconds: float

    @property
    def held_pixels(self) -> int:
        """Float32 pixels that it keeps in memory."""
        return self.depth.numel() + self.pixels.nbytes // 4


class DepthWriter:
    """Write each prediction in the chosen formats, in threads of their own.

    A picture's own suffix stays in the names, so that a.jpg and a.png keep apart.

    Args:
        folder: Where to; the pictures' folders are mirrored below it.
        pictures: What the batches' indices mean.
        focals_px: Each one's focal length by EXIF.
        formats: What to write.
        look: Of the run.
        camera: For point clouds.
        calibrator: What makes metres of predictions, where points are known.
        ledger: Where every picture is noted.
        adapters: Of a bank each picture's adapter, and how sure a router was of it.
    """

    def __init__(
        self,
        folder: Path,
        pictures: Sequence[Picture],
        focals_px: Sequence[float | None],
        formats: tuple[Format, ...],
        look: Look,
        camera: Camera,
        calibrator: Calibrator | None,
        ledger: Ledger,
        adapters: Sequence[tuple[str | None, float | None]],
    ) -> None:
        self.folder, self.pictures, self.focals_px = folder, pictures, focals_px
        self.formats, self.look = formats, look
        self.camera, self.ledger = camera, ledger
        self.adapters = adapters
        self.calibrator = calibrator
        self._threads = ThreadPoolExecutor(THREADS)
        self._budget = PixelBudget(PIXELS)
        self._waiting: deque[tuple[int, Future[None]]] = deque()

    def add(self, outcome: Tensor, batch: PhotographBatch, seconds: float) -> None:
        """Hand a batch to the threads, and wait for older ones if much is waiting."""
        each = seconds / len(batch["index"])
        for i, index in enumerate(batch["index"]):
            predicted = Predicted(
                index,
                batch["size"][i],
                outcome[i],
                batch["pixels"][i],
                batch["error"][i],
                each,
            )
            future = self._threads.submit(self._write, predicted)
            share = max(predicted.held_pixels, WAITING_PIXELS // WAITING)
            self._waiting.append((share, future))
        self._collect(WAITING_PIXELS)

    def finish(self) -> None:
        """Wait for everything that was handed over, and end the ledger's journal."""
        try:
            self._collect(0)
        finally:
            self._threads.shutdown()
            self.ledger.close()

    def _collect(self, leave: int) -> None:
        while sum(share for share, _ in self._waiting) > leave:
            self._waiting.popleft()[1].result()

    def _write(self, predicted: Predicted) -> None:
        """Write a picture's files, then its entry: what is noted is there."""
        picture = self.pictures[predicted.index]
        entry: Entry = {
            "source": str(picture.path),
            "stamp": stamp(picture.path),
            "formats": [],
            "outputs": [],
            "error": predicted.error,
            "seconds": round(predicted.seconds, 4),
        }
        adapter, confidence = self.adapters[predicted.index]
        entry |= {} if adapter is None else {"adapter": adapter}
        entry |= {} if confidence is None else {"confidence": round(confidence, 6)}
        if not predicted.error:
            with self._budget.taken(math.prod(predicted.size)):
                self._write_files(predicted, entry)
        self.ledger.note(picture.name, entry)

    def _write_files(self, predicted: Predicted, entry: Entry) -> None:
        picture = self.pictures[predicted.index]
        depth = at_size(predicted.depth, predicted.size)
        try:
            check_finite(depth)
        except DataError as problem:
            entry["error"] = str(problem)
            return
        if self.calibrator is not None:
            try:
                depth, note = self.calibrator.metres(picture.name, depth)
            except DataError as problem:
                entry["error"] = f"{picture.path}: {problem}"
                return
            entry["calibration"] = note
        focal_px = self.focals_px[predicted.index]
        intrinsics = self.camera.intrinsics(predicted.size, focal_px)
        entry |= summary(depth, intrinsics, assumed=self.camera.assumes(focal_px))
        for kind in self.formats:
            path = self.folder / f"{picture.name}{ENDINGS[kind]}"
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self.look.write(kind, path, depth, predicted.pixels, intrinsics)
            except (DataError, OSError) as problem:
                entry["error"] = str(problem)
                return
            entry["formats"].append(kind)
            entry["outputs"].append(path.relative_to(self.folder).as_posix())
