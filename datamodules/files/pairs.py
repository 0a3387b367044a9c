"""RGB-D frames that are two files each."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.batch import Frame, Frames
from datamodules.errors import DataError
from datamodules.files.depth_files import Unknown, read_depth, read_image


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
    """

    def __init__(
        self,
        pairs: list[Pair],
        unknown: Unknown = "error",
        *,
        may_be_empty: bool = False,
    ) -> None:
        self.pairs, self.unknown, self.may_be_empty = pairs, unknown, may_be_empty

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Frame:
        pair = self.pairs[index]
        image = read_image(pair.image)
        depth = read_depth(
            pair.depth,
            pair.depth_scale,
            self.unknown,
            may_be_empty=self.may_be_empty,
        )
        if image.shape[:2] != depth.shape:
            raise DataError(
                f"{pair.image} is {_size(image)} px but its depth {pair.depth} is "
                f"{_size(depth)}; register the two to one size first"
            )
        return Frame(image, depth, str(pair.image), pair.intrinsics)


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
