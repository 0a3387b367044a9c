"""Frozen evaluation protocols: which pixels count, and how a prediction meets them."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import DataError

WindowName = Literal["none", "kb", "nyu_border"]
Crop = Literal["none", "nyu_eigen", "garg"]


class Box(NamedTuple):
    """Half-open ranges of rows and columns."""

    top: int
    bottom: int
    left: int
    right: int

    def inside(self, outer: "Box") -> "Box":
        """This box, given within `outer`, in the coordinates that `outer` is in."""
        top, left = outer.top, outer.left
        return Box(
            self.top + top, self.bottom + top, self.left + left, self.right + left
        )


class Silog(NamedTuple):
    """factor * sqrt(mean(e^2) - focus * mean(e)^2), e = ln depth - ln target."""

    focus: float = 1.0
    factor: float = 100.0


KITTI_SILOG = Silog()
"""The KITTI benchmark's, also of ZoeDepth, BTS, NeWCRFs."""


@dataclass(frozen=True)
class Protocol:
    """The rules that two numbers must share before they may be compared."""

    name: str
    max_depth: float
    """Metres; truth beyond it does not count, predictions are clamped to it."""
    min_depth: float = 1e-3
    n_images: int | None = None
    """How many images the protocol's own list has; None if it has no list."""
    window: WindowName = "none"
    """Part of a frame that is looked at at all, image and truth alike."""
    crop: Crop = "none"
    """Part of the truth that counts."""
    crop_in_window: bool = True
    """Whether the crop is taken of the window, or of the whole frame."""
    inclusive: bool = False
    """Whether truth at exactly min_depth or max_depth counts."""
    clamp: bool = True
    """Whether predictions are clamped to the range."""
    resize: Literal["fixed", "lower_bound"] = "fixed"
    """How an image becomes the network's input: to `image_size`, whatever its shape,
    or in its own shape so that both sides are at least `image_size`."""
    input_px: int | None = None
    """What both sides are at least then, whatever `image_size` is; None for that."""
    align_corners: bool = True
    """How a prediction is resized (bilinear) to the size of the truth."""
    min_pixels: int = 1
    """An image with fewer that count is not scored."""
    silog: Silog = KITTI_SILOG

    def __post_init__(self) -> None:
        if not 0 < self.min_depth < self.max_depth:
            raise DataError(
                f"protocol {self.name}: depth range {self.min_depth}..{self.max_depth} "
                "m is not usable; it must be 0 < min_depth < max_depth"
            )

    def in_range(self, depth: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Pixels of a depth map (H, W) in metres whose truth is in range."""
        if self.inclusive:
            return (depth >= self.min_depth) & (depth <= self.max_depth)
        return (depth > self.min_depth) & (depth < self.max_depth)

    def box(self, rows: int, cols: int) -> Box:
        """The crop in pixels of a whole frame of this size."""
        whole = Box(0, rows, 0, cols)
        if self.crop == "none":
            return window_box(self.window, rows, cols)
        outer = window_box(self.window, rows, cols) if self.crop_in_window else whole
        return _crop_box(self.crop, outer).inside(outer)

    def valid(self, depth: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Pixels of a whole frame's depth (H, W) that count: in range, in the crop."""
        top, bottom, left, right = self.box(*depth.shape)
        valid = np.zeros(depth.shape, np.bool_)
        valid[top:bottom, left:right] = self.in_range(depth[top:bottom, left:right])
        if np.count_nonzero(valid) < self.min_pixels:
            valid[:] = False
        return valid


def window_box(name: WindowName, rows: int, cols: int) -> Box:
    """A named window of a frame (rows, cols).

    `kb`: the lowest 352 rows and the middle 1216 columns (the KITTI benchmark's crop,
    as in BTS `bts_dataloader.py`). `nyu_border`: what BTS trains on, without the white
    border that registering depth to colour left.

    Raises:
        DataError: If the window is not defined on a frame of this size.
    """
    if name == "kb":
        if rows < 352 or cols < 1216:
            raise DataError(
                f"a frame of {cols}x{rows} px has no KB window of 1216x352; KITTI's "
                "own frames are 1224 to 1242 wide and 370 to 376 high"
            )
        top, left = rows - 352, (cols - 1216) // 2
        return Box(top, top + 352, left, left + 1216)
    if name == "nyu_border":
        _need_nyu_size("border", rows, cols)
        return Box(45, 472, 43, 608)
    return Box(0, rows, 0, cols)


def _crop_box(crop: Crop, outer: Box) -> Box:
    """A crop of a box, in the box's own coordinates."""
    rows, cols = outer.bottom - outer.top, outer.right - outer.left
    if crop == "nyu_eigen":
        _need_nyu_size("Eigen crop", rows, cols)
        return Box(45, 471, 41, 601)
    # Garg et al., Unsupervised CNN for Single View Depth Estimation, 2016.
    return Box(
        int(0.40810811 * rows),
        int(0.99189189 * rows),
        int(0.03594771 * cols),
        int(0.96405229 * cols),
    )


def _need_nyu_size(what: str, rows: int, cols: int) -> None:
    if (rows, cols) != (480, 640):
        raise DataError(
            f"NYU's {what} is defined on frames of 640x480 px, not {cols}x{rows}; use "
            "the original size (or FolderDataModule, protocol full)"
        )


def full(max_depth: float) -> Protocol:
    """Every known pixel nearer than `max_depth` metres, no crop, any data set."""
    return Protocol("full", max_depth)


NYU_EIGEN = Protocol("nyu_eigen", 10.0, n_images=654, crop="nyu_eigen")
"""As ZoeDepth `utils/misc.py: compute_metrics`, Depth Anything V1, BTS and NeWCRFs."""

KITTI_EIGEN_GARG_KB = Protocol(
    "kitti_eigen_garg_kb", 80.0, n_images=652, window="kb", crop="garg"
)
"""Garg's crop of the KB window: ZoeDepth, Depth Anything V1, BTS `online_eval`."""

KITTI_EIGEN_GARG_FULL = Protocol(
    "kitti_eigen_garg_full",
    80.0,
    n_images=652,
    window="kb",
    crop="garg",
    crop_in_window=False,
)
"""Garg's crop of the whole frame, predictions from the KB window: BTS `bts_eval.py
--do_kb_crop --garg_crop`. The crop lies within the window on all of KITTI."""

KITTI_DA2 = Protocol(
    "kitti_da2",
    80.0,
    n_images=652,
    inclusive=True,
    clamp=False,
    resize="lower_bound",
    input_px=518,
    min_pixels=10,
    silog=Silog(0.5, 1.0),
)
"""No crop: Depth Anything V2 `metric_depth/train.py` (`--img-size 518`) and
`util/metric.py`."""

KittiProtocol = Literal["kitti_eigen_garg_kb", "kitti_eigen_garg_full", "kitti_da2"]
KITTI: dict[KittiProtocol, Protocol] = {
    "kitti_eigen_garg_kb": KITTI_EIGEN_GARG_KB,
    "kitti_eigen_garg_full": KITTI_EIGEN_GARG_FULL,
    "kitti_da2": KITTI_DA2,
}
