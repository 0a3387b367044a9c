"""RGB-D frames that are two files each."""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.batch import Frame, Frames
from datamodules.errors import DataError
from datamodules.files.cameras import OneCamera, pinhole
from datamodules.files.depths.reading import Unknown, read_depth
from datamodules.files.images.decoding import decode_image
from datamodules.files.images.headers import Exif
from datamodules.files.lists.listing import missing_files
from datamodules.sizes import Size, same_shape

DepthResize = Literal["error", "nearest"]


@dataclass(frozen=True)
class Pair:
    """Where one frame lies."""

    image: Path
    depth: Path
    depth_scale: float
    """Stored units per metre."""
    intrinsics: NDArray[np.float32] | None = None
    """(3, 3) in pixels of the picture; NaN for a principal point in its middle."""


@dataclass(frozen=True)
class Labels:
    """One word a frame, such as the folder it lies in."""

    names: list[str]
    codes: NDArray[np.int32]
    """(N,) places in `names`."""

    @classmethod
    def of(cls, words: Iterable[str]) -> "Labels":
        """Number the different ones in the order in which they come."""
        known: dict[str, int] = {}
        codes = [known.setdefault(word, len(known)) for word in words]
        return cls(list(known), np.array(codes, np.int32))


class Pairs(Sequence[Pair]):
    """Any number of pairs in little memory, which processes that fork keep sharing.

    A `Pair` of its own for each takes a kilobyte, and counting the references to it
    copies its page into every process.

    Args:
        root: What paths are relative to.
        images: Paths of the pictures.
        depths: Paths of their depth maps.
        depth_scale: Stored units per metre, of all or of each.
        camera: (N, 4) fx, fy, cx, cy in pixels; NaN in fx where there is none, in cx
            and cy for the middle.
        split: Of each, where a table says it or frames shall be grouped by it.
    """

    def __init__(
        self,
        root: Path,
        images: Sequence[str],
        depths: Sequence[str],
        depth_scale: float | NDArray[np.float64],
        camera: NDArray[np.float32] | None = None,
        split: Labels | None = None,
    ) -> None:
        self.root, self.split = root, split
        self._images, self._depths = _Texts(images), _Texts(depths)
        self._scale = np.broadcast_to(np.float64(depth_scale), len(images))
        self._camera = camera
        self._order: NDArray[np.integer[Any]] | range = range(len(images))

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> "Pairs": ...
    def __getitem__(self, index: int | slice) -> "Pair | Pairs":
        if isinstance(index, slice):
            return self.chosen(np.arange(len(self))[index])
        place = int(self._order[index])
        k = None
        if self._camera is not None and not np.isnan(self._camera[place, 0]):
            fx, fy, cx, cy = self._camera[place]
            k = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float32)
        return Pair(
            self.root / self._images[place],
            self.root / self._depths[place],
            float(self._scale[place]),
            k,
        )

    def chosen(self, indices: NDArray[np.integer[Any]]) -> "Pairs":
        """Some of them, in this order; the rest stays shared."""
        some = Pairs.__new__(Pairs)
        some.__dict__.update(self.__dict__)
        some._order = np.asarray(self._order)[indices]
        if self.split is not None:
            some.split = Labels(self.split.names, self.split.codes[indices])
        return some

    def pictures(self) -> Labels:
        """The file of each picture; a table may have one twice, in other words."""
        root = os.path.abspath(self.root)  # noqa: PTH100 - links are not followed
        images = (self._images[int(place)] for place in self._order)
        return Labels.of(os.path.normpath(os.path.join(root, i)) for i in images)  # noqa: PTH118

    def relative(self) -> Iterator[str]:
        """The path of each picture, as it is given."""
        return (self._images[int(place)] for place in self._order)

    def folders(self) -> Labels:
        """The folder of each picture, below the root."""
        order = (int(place) for place in self._order)
        images = (os.path.normpath(self._images[place]) for place in order)
        return Labels.of(image[: max(image.rfind("/"), 0)] for image in images)


class _Texts:
    """Strings in one piece of memory."""

    def __init__(self, texts: Sequence[str]) -> None:
        parts = [os.fsencode(text) for text in texts]
        self._content = b"".join(parts)
        self._ends = np.cumsum([0, *map(len, parts)])

    def __getitem__(self, index: int) -> str:
        return os.fsdecode(self._content[self._ends[index] : self._ends[index + 1]])


class PairFrames(Frames):
    """RGB-D frames read from files as they are asked for.

    Args:
        pairs: Where they lie.
        unknown: NaN, infinite and negative depths: `error`, or `ignore`.
        may_be_empty: Whether a frame without any known depth is no error.
        exif: Whether pictures are turned upright by their EXIF orientation, which
            depth maps do not have; the first that is turned is said.
        unknown_values: More stored numbers that mean unknown.
        depth_resize: A depth map of another size than its picture's: `error`, or
            `nearest`, which brings it to the picture's size where the two have one
            shape, each pixel's depth being the nearest stored one.
        camera: Of all frames; goes before the pairs' own, and EXIF comes last.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        unknown: Unknown = "error",
        *,
        may_be_empty: bool = False,
        exif: Exif = "apply",
        unknown_values: Sequence[float] = (),
        depth_resize: DepthResize = "error",
        camera: OneCamera = OneCamera(),  # noqa: B008 - frozen
    ) -> None:
        self.pairs, self.unknown, self.may_be_empty = pairs, unknown, may_be_empty
        self.exif: Exif = exif
        self._warned = False
        self.unknown_values = tuple(unknown_values)
        self.depth_resize: DepthResize = depth_resize
        self.camera = camera

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Frame:
        pair = self.pairs[index]
        picture = decode_image(pair.image, self.exif)
        image, orientation = picture.pixels, picture.orientation
        depth = read_depth(
            pair.depth,
            pair.depth_scale,
            self.unknown,
            unknown_values=self.unknown_values,
            may_be_empty=self.may_be_empty,
        )
        size = (image.shape[0], image.shape[1])
        alike = same_shape(depth.shape, size)
        if depth.shape != size and alike and self.depth_resize == "nearest":
            depth = resized_depth(depth, size)
        if depth.shape != size:
            raise DataError(
                f"{pair.image} is {_size(image)} px but its depth {pair.depth} is "
                f"{_size(depth)}; {self._what_to_do(image, depth, orientation, alike)}"
            )
        if orientation != 1 and self.exif == "apply" and not self._warned:
            self._warned = True
            warnings.warn(
                f"{pair.image} is turned by its EXIF orientation ({orientation}), and "
                f"its depth {pair.depth} has none; if it was made from the picture as "
                "stored, set exif: ignore",
                stacklevel=2,
            )
        k = self.camera.intrinsics(size)
        if k is None:
            k = pair.intrinsics
        if k is None and picture.focal_px is not None:
            k = pinhole(picture.focal_px)
        return Frame(image, depth, str(pair.image), _centred(k, size))

    def _what_to_do(
        self,
        image: NDArray[np.uint8],
        depth: NDArray[np.float32],
        orientation: int,
        alike: bool,
    ) -> str:
        swapped = (image.shape[0] < image.shape[1]) != (depth.shape[0] < depth.shape[1])
        if orientation < 5 or not swapped:
            register = "register the two to one size first"
            return f"set depth_resize: nearest, or {register}" if alike else register
        done, other = (
            ("turned by", "ignore")
            if self.exif == "apply"
            else ("taken without", "apply")
        )
        return f"it is {done} its EXIF orientation ({orientation}): set exif: {other}"


def resized_depth(depth: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    """A depth map (H, W) at (rows, cols): of each pixel's centre the nearest number.

    No mean across an object's edge, which would be a depth that nothing has.
    """
    resized = cv2.resize(depth, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return resized.astype(np.float32, copy=False)


def check_files(pairs: Sequence[Pair], source: str) -> None:
    """Refuse pairs whose files do not exist; `source` is what named them."""
    files = [str(path) for pair in pairs for path in (pair.image, pair.depth)]
    missing = missing_files("", files)
    if missing:
        named = ", ".join(files[place] for place in missing[:3])
        raise DataError(
            f"{source} names {len(missing)} files that do not exist, of {len(files)}: "
            f"{named}"
        )


def _size(pixels: NDArray[np.generic]) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def _centred(
    intrinsics: NDArray[np.float32] | None, size: Size
) -> NDArray[np.float32] | None:
    """The principal point in the middle of the picture where it is not given."""
    if intrinsics is None or not np.isnan(intrinsics).any():
        return intrinsics
    k = intrinsics.copy()
    middle = (size[1] - 1) / 2, (size[0] - 1) / 2
    k[:2, 2] = np.where(np.isnan(k[:2, 2]), middle, k[:2, 2])
    return k
