"""Frames of videos, in whose size and number a file's head is believed."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.errors import DataError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")


def probe_video(path: Path) -> tuple[int, tuple[int, int] | None]:
    """Number of frames and their size (rows, cols), upright; 0, None if unreadable."""
    video = cv2.VideoCapture(str(path))
    try:
        if not video.isOpened():
            return 0, None
        count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        # OpenCV turns frames by the video's rotation; what it gives tells their size.
        done, first = video.read()
        return max(count, 0), (first.shape[0], first.shape[1]) if done else None
    finally:
        video.release()


class VideoReader:
    """Reads frames of one video after the other."""

    def __init__(self) -> None:
        self._open: tuple[Path, cv2.VideoCapture, int] | None = None

    def read(self, path: Path, number: int) -> NDArray[np.uint8]:
        """Frame `number`, RGB (H, W, 3); going on from the last is fast, jumping not.

        Raises:
            DataError: If there is none.
        """
        if self._open is None or self._open[0] != path:
            self._open = (path, cv2.VideoCapture(str(path)), 0)
        _, video, following = self._open
        if number != following:
            video.set(cv2.CAP_PROP_POS_FRAMES, number)
        done, pixels = video.read()
        if not done:
            raise DataError(f"{path} has no frame {number} that can be decoded")
        self._open = (path, video, number + 1)
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
