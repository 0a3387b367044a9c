"""RGB-D frames in HDF5: NYU's labelled set as one file, or one file a frame."""

import os
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from datamodules.batch import Frame, Frames
from datamodules.errors import DataError
from datamodules.files.depths.reading import metres
from datamodules.sizes import Size

DepthKey = Literal["rawDepths", "depths"]


class MatFrames(Frames):
    """Frames of `nyu_depth_v2_labeled.mat`, read as they are asked for.

    MATLAB v7.3 is HDF5 with its axes reversed: `images` (N, 3, 640, 480) uint8,
    `depths` (in-painted) and `rawDepths` (holes are 0), both (N, 640, 480) metres.

    Args:
        path: The file.
        indices: Which frames, counted from 0.
        depth: Which of the two depths.
        intrinsics: (3, 3) pixels, of every frame.

    Raises:
        DataError: If the file is no such file or cut off.
    """

    def __init__(
        self,
        path: Path,
        indices: NDArray[np.integer[Any]],
        depth: DepthKey,
        intrinsics: NDArray[np.float32] | None = None,
    ) -> None:
        self.path, self.depth, self.intrinsics = path, depth, intrinsics
        self.indices = [int(index) for index in indices]
        # An open HDF5 file must not cross a fork: each process opens its own.
        self._opened: tuple[int, h5py.File] | None = None
        count = self._check()
        if self.indices and max(self.indices) >= count:
            raise DataError(
                f"{path} has {count} frames, but the split names frame "
                f"{max(self.indices) + 1}; give the split of this file"
            )

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Frame:
        number = self.indices[index]
        name = f"{self.path}#{number + 1}"
        try:
            image = self._dataset("images")[number]
            depth = self._dataset(self.depth)[number]
        except OSError as error:
            raise DataError(f"{name} cannot be read ({error}); copy the file") from None
        return Frame(
            np.ascontiguousarray(image.transpose(2, 1, 0)),
            metres(np.ascontiguousarray(depth.T), name, 1, may_be_empty=True),
            name,
            self.intrinsics,
        )

    def _check(self) -> int:
        """The number of frames; refuse pictures and depths of another form."""
        images, depths = self._dataset("images"), self._dataset(self.depth)
        whole = images.ndim == 4 and images.shape[1] == 3 and images.dtype == np.uint8
        if not whole or depths.shape != (len(images), *images.shape[2:]):
            raise DataError(
                f"{self.path}: images {images.shape} {images.dtype} and {self.depth} "
                f"{depths.shape} are not (N, 3, W, H) uint8 and (N, W, H), as in NYU's "
                "labelled set; give the official file"
            )
        return len(images)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def _dataset(self, key: str) -> h5py.Dataset:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), open_hdf5(self.path))
        return _dataset(self._opened[1], key, self.path)


class H5Frames(Frames):
    """One HDF5 file a frame: `rgb` (3, H, W) uint8, `depth` (H, W) metres.

    The form of FastDepth and sparse-to-dense (MIT), also of the Hub's `nyu_depth_v2`.
    """

    def __init__(
        self,
        files: list[Path],
        intrinsics: NDArray[np.float32] | None = None,
        size: Size = (480, 640),
    ) -> None:
        """Take the files.

        Args:
            files: One a frame.
            intrinsics: Of frames of the full size.
            size: That size (rows, cols). FastDepth also handed out cut and shrunk
                frames, whose camera no file says.
        """
        self.files, self.intrinsics, self.size = files, intrinsics, size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Frame:
        path = self.files[index]
        with open_hdf5(path) as file:
            try:
                image = _dataset(file, "rgb", path)[:]
                depth = _dataset(file, "depth", path)[:]
            except OSError as error:
                raise DataError(f"{path} cannot be read ({error})") from None
        whole = image.ndim == 3 and image.shape[0] == 3 and image.dtype == np.uint8
        if not whole or image.shape[1:] != depth.shape:
            raise DataError(
                f"{path}: rgb {image.shape} {image.dtype} and depth {depth.shape} are "
                "not (3, H, W) uint8 and (H, W)"
            )
        return Frame(
            np.ascontiguousarray(image.transpose(1, 2, 0)),
            metres(depth, str(path), 1, may_be_empty=True),
            str(path),
            self.intrinsics if depth.shape == self.size else None,
        )


def open_hdf5(path: Path) -> h5py.File:
    """Open for reading.

    Raises:
        DataError: If the file is missing, cut off or no HDF5.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DataError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be opened as HDF5; it may "
            f"be cut off: fetch it again ({error})"
        ) from None


def read_split(path: Path, key: Literal["trainNdxs", "testNdxs"]) -> NDArray[np.int64]:
    """Frame numbers, counted from 0, of NYU's `splits.mat` (MATLAB v5, from 1).

    Raises:
        DataError: If the file is missing or has no such split.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; it is the labelled set's splits.mat")
    try:
        numbers = loadmat(path)[key]
    except (
        MatReadError,
        ValueError,
        IndexError,
        OSError,
        NotImplementedError,
    ) as error:
        raise DataError(f"{path} cannot be read as MATLAB v5 ({error})") from None
    except KeyError:
        raise DataError(f"{path} has no {key}; it is not NYU's splits.mat") from None
    if numbers.dtype.kind not in "iuf" or (numbers < 1).any() or (numbers % 1).any():
        raise DataError(
            f"{path}: {key} are not numbers of frames, which MATLAB counts from 1; "
            "give the labelled set's own splits.mat"
        )
    return np.asarray(numbers, np.int64).ravel() - 1


def _dataset(file: h5py.File, key: str, path: Path) -> h5py.Dataset:
    if key not in file:
        raise DataError(
            f"{path} has no {key!r}, only {', '.join(sorted(file)[:6]) or 'nothing'}"
        )
    if not isinstance(file[key], h5py.Dataset):
        raise DataError(f"{path}: {key!r} is a group, not an array")
    return file[key]
