"""A look at a data set before a run: sizes, depths, and what is suspicious of them."""

import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from datamodules.batch import Frames
from datamodules.errors import DataError
from datamodules.files.depths.units import is_likely, likely_unit

SAMPLED_PX = 4096
"""Known depths that are kept of one frame, evenly spread."""
_MUCH_UNKNOWN = 0.995
"""A LiDAR sweep knows 4 % of the pixels; fewer than this are hardly a truth."""
_MUCH_BEYOND = 0.5
_NARROW, _SHORT = 30, 8
"""Suspicious: a median below max_depth / 30, all of it below max_depth / 8."""
_REPEATED = 0.001
"""Of the pixels; the largest depth that more of them have was not measured."""

_SEVERAL = 4
"""Frames, from which on what most of them have in common is no chance."""


@dataclass
class Survey:
    """What a sample of frames came to."""

    frames: int
    """In the set."""
    looked_at: int = 0
    unreadable: list[str] = field(default_factory=list)
    """Why, of each that could not be read."""
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Frames of each (rows, cols)."""
    with_intrinsics: int = 0
    pixels: int = 0
    known: int = 0
    beyond: int = 0
    """Pixels whose depth is known, and not below max_depth."""
    depths: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    """Metres: known depths, at most `SAMPLED_PX` of a frame."""
    ceilings: Counter[float] = field(default_factory=Counter)
    """Metres: largest depths that many pixels of a frame share, and in how many."""


def survey(
    frames: Frames, count: int, max_depth: float, seconds: float = float("inf")
) -> Survey:
    """Look at frames that are spread evenly over a set.

    Args:
        frames: The set.
        count: At most so many.
        max_depth: Metres.
        seconds: No other frame is begun after them.
    """
    began = time.monotonic()
    found = Survey(len(frames))
    depths = []
    for index in np.unique(np.linspace(0, len(frames) - 1, count).round().astype(int)):
        if time.monotonic() - began > seconds:
            break
        found.looked_at += 1
        try:
            frame = frames[int(index)]
        except DataError as error:
            found.unreadable.append(str(error))
            continue
        found.sizes[frame.depth.shape[0], frame.depth.shape[1]] += 1
        found.with_intrinsics += frame.intrinsics is not None
        known = frame.depth[frame.depth > 0]
        found.pixels += frame.depth.size
        found.known += known.size
        found.beyond += int(np.count_nonzero(known >= max_depth))
        depths.append(known[:: max(known.size // SAMPLED_PX, 1)][:SAMPLED_PX])
        if known.size:
            most = known.max()
            if np.count_nonzero(known == most) > max(_REPEATED * known.size, 1):
                found.ceilings[float(most)] += 1
    if depths:
        found.depths = np.concatenate(depths)
    return found


def unusable(found: Survey) -> str | None:
    """Why nothing can be learned from such frames; None if something can."""
    if found.looked_at and len(found.unreadable) == found.looked_at:
        return f"none of {found.looked_at} frames can be read: {found.unreadable[0]}"
    if found.looked_at and not found.known:
        return f"none of {found.looked_at} frames has a known depth"
    if found.known and found.beyond == found.known:
        low = float(found.depths.min())
        return f"every depth is beyond max_depth, the nearest at {low:.3g} m"
    return None


def unread(found: Survey) -> list[str]:
    """How many frames cannot be read, and why the first cannot."""
    if not found.unreadable:
        return []
    return [
        f"{len(found.unreadable)} of {found.looked_at} frames cannot be read, the "
        f"first: {found.unreadable[0]}"
    ]


def suspicions(
    found: Survey, max_depth: float, depth_scale: float | None = None
) -> list[str]:
    """What is unlikely to be meant of the depths, one line each.

    Args:
        found: The sample.
        max_depth: Metres.
        depth_scale: Stored units per metre, where one is set for all frames.
    """
    if not found.known:
        return []
    lines = []
    median, far = (float(q) for q in np.quantile(found.depths, (0.5, 0.99)))
    unit = ""
    if depth_scale is not None and not is_likely(median):
        stored = median * depth_scale
        unit = f"; a stored {stored:.4g} may be {likely_unit(stored)}"
    if found.beyond > _MUCH_BEYOND * found.known:
        lines.append(
            f"{found.beyond / found.known:.0%} of the known depths are beyond "
            f"max_depth {max_depth:g} m and do not count: median {median:.3g} m{unit}"
        )
    elif median < max_depth / _NARROW:
        lines.append(
            f"the median depth is {median:.3g} m of max_depth {max_depth:g} m{unit}"
        )
    elif far < max_depth / _SHORT:
        lines.append(
            f"99 % of the depths are below {far:.3g} m of max_depth {max_depth:g} m: "
            "take a little more than is there, so that the network's range is used"
        )
    unknown = 1 - found.known / found.pixels
    if unknown > _MUCH_UNKNOWN:
        lines.append(f"{unknown:.2%} of the pixels are unknown")
    read = found.looked_at - len(found.unreadable)
    for ceiling, times in found.ceilings.most_common(1):
        if read >= _SEVERAL and times > read / 2:
            stored = ceiling * (depth_scale or 1)
            value, option = "", ""
            if depth_scale is not None:
                value = f" (stored {stored:.6g})"
                option = f": then set --data.unknown_values {stored:.6g}"
            lines.append(
                f"{ceiling:.5g} m{value} is the largest depth of many pixels in "
                f"{times} of {read} frames: it may mean unknown{option}"
            )
    return lines
