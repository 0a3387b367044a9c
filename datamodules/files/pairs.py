"""RGB-D frames that are two files each."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.batch import Frame, Frames
from datamodules.errors import DataError
from datamodules.files.depth_files import Unknown, read_depth
from datamodules.files.image_files import decode_image
from datamodules.files.image_headers import Exif


@dataclass(frozen=True)
class Pair:
    """Where one frame lies."""

    image: Path
    depth: Path
    depth_scale: float
    """Stored units per metre."""
    intrinsics: NDArray[np.float32] | None = None


class PairFrames(Frames):
    """RGB-D frames read from files as they are asked for.

    Args:
        pairs: Where they lie.
        unknown: NaN, infinite and negative depths: `error`, or `ignore`.
        may_be_empty: Whether a frame without any known depth is no error.
        exif: Whether pictures are turned upright by their EXIF orientation, which
            depth maps do not have; the first that is turned is said.
    """

    def __init__(
        self,
        pairs: list[Pair],
        unknown: Unknown = "error",
        *,
        may_be_empty: bool = False,
        exif: Exif = "apply",
    ) -> None:
        self.pairs, self.unknown, self.may_be_empty = pairs, unknown, may_be_empty
        self.exif: Exif = exif
        self._warned = False

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
            may_be_empty=self.may_be_empty,
        )
        if image.shape[:2] != depth.shape:
            raise DataError(
                f"{pair.image} is {_size(image)} px but its depth {pair.depth} is "
                f"{_size(depth)}; {self._what_to_do(image, depth, orientation)}"
            )
        if orientation != 1 and self.exif == "apply" and not self._warned:
            self._warned = True
            warnings.warn(
                f"{pair.image} is turned by its EXIF orientation ({orientation}), and "
                f"its depth {pair.depth} has none; if it was made from the picture as "
                "stored, set exif: ignore",
                stacklevel=2,
            )
        return Frame(image, depth, str(pair.image), pair.intrinsics)

    def _what_to_do(
        self,
        image: NDArray[np.uint8],
        depth: NDArray[np.float32],
        orientation: int,
    ) -> str:
        swapped = (image.shape[0] < image.shape[1]) != (depth.shape[0] < depth.shape[1])
        if orientation < 5 or not swapped:
            return "register the two to one size first"
        done, other = (
            ("turned by", "ignore")
            if self.exif == "apply"
            else ("taken without", "apply")
        )
        return f"it is {done} its EXIF orientation ({orientation}): set exif: {other}"


def check_files(pairs: list[Pair], source: str) -> None:
    """Refuse pairs whose files do not exist; `source` is what named them."""
    files = [path for pair in pairs for path in (pair.image, pair.depth)]
    missing = [path for path in files if not path.is_file()]
    if missing:
        named = ", ".join(map(str, missing[:3]))
        raise DataError(
            f"{source} names {len(missing)} files that do not exist, of {len(files)}: "
            f"{named}"
        )


def _size(pixels: NDArray[np.generic]) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
