"""Which size of picture a network sees; sizes are (rows, cols) in pixels."""

import re
from typing import Literal

from datamodules.errors import DataError

Size = tuple[int, int]
InputSize = Size | int | str
"""(rows, cols): that size whatever the picture's shape; a number: the picture's own
shape, both sides at least that; `max504`: likewise, the longer side that; `native`: the
picture's own size."""

Shrink = Literal["area", "cubic"]
"""How a picture is made much smaller: by the area's mean, or, as in Depth Anything's
official code, by cubic interpolation without a filter, which skips pixels."""
DEFAULT_BOUND = 518
"""Depth Anything's own: the picture's shape, both sides at least this."""
LONGEST = 4
"""A picture's longer side becomes at most this many times the shorter bound."""


def check_image_size(size: Size, patch_px: int, name: str = "image_size") -> Size:
    """Return `size` if a network of such patches can take it, else say what it could.

    Raises:
        DataError: Naming the nearest size that fits.
    """
    if any(side < patch_px or side % patch_px for side in size):
        near = [_nearest(side, patch_px) for side in size]
        raise DataError(
            f"{name} {list(size)} (rows, cols) must be multiples of {patch_px}; "
            f"the nearest is {near}"
        )
    return size


def lower_bound(size: Size, least: Size, patch_px: int) -> Size:
    """A picture's size scaled so that both sides are at least `least`.

    Each side is then rounded to a multiple of the patch, upwards where it would fall
    below: the rule of Depth Anything V2's `Resize(resize_method="lower_bound")`.
    """
    scale = max(least[0] / size[0], least[1] / size[1])

    def rounded(side: int, low: int) -> int:
        nearest = round(scale * side / patch_px) * patch_px
        return nearest if nearest >= low else -(-low // patch_px) * patch_px

    return rounded(size[0], least[0]), rounded(size[1], least[1])


def longest_side(wanted: InputSize) -> int | None:
    """N of `maxN`; None of every other size."""
    found = re.fullmatch(r"max([1-9]\d*)", wanted) if isinstance(wanted, str) else None
    return int(found[1]) if found else None


def upper_bound(size: Size, longest: int, patch_px: int) -> Size:
    """A picture's size scaled so that its longer side is `longest`.

    Each side is then rounded to a multiple of the patch, upwards from halfway: the rule
    of Depth Anything 3's `upper_bound_resize` (`utils/io/input_processor.py`).
    """
    scale = longest / max(size)

    def rounded(side: int) -> int:
        scaled = round(side * scale)
        return max((2 * scaled + patch_px) // (2 * patch_px), 1) * patch_px

    return rounded(size[0]), rounded(size[1])


def input_size(size: Size, wanted: InputSize, patch_px: int) -> Size:
    """The network's input for a picture of this size."""
    if isinstance(wanted, tuple):
        return wanted
    if (longest := longest_side(wanted)) is not None:
        return upper_bound(size, longest, patch_px)
    if isinstance(wanted, str):
        return _nearest(size[0], patch_px), _nearest(size[1], patch_px)
    found = lower_bound(size, (wanted, wanted), patch_px)
    if max(found) > LONGEST * wanted:
        # A strip would become larger than any memory.
        shrink = LONGEST * wanted / max(size)
        found = (
            _nearest(size[0] * shrink, patch_px),
            _nearest(size[1] * shrink, patch_px),
        )
    return found


def same_shape(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether one (rows, cols) is the other at some scale, in whole pixels.

    Both sides may have been rounded to the nearest, down, or up.
    """
    small, large = sorted((one, other))
    for below, above in ((0.5, 0.5), (0, 1), (1, 0)):
        scales = [
            ((side - below) / whole, (side + above) / whole)
            for side, whole in zip(small, large, strict=True)
        ]
        if max(low for low, _ in scales) < min(high for _, high in scales):
            return True
    return False


def fixed(wanted: InputSize, patch_px: int) -> Size:
    """One size to stand for all that are wanted: of tiles, probes, unreadable files."""
    side = DEFAULT_BOUND if wanted == "native" else wanted
    return input_size((DEFAULT_BOUND, DEFAULT_BOUND), side, patch_px)


def _nearest(side: float, patch_px: int) -> int:
    return max(round(side / patch_px), 1) * patch_px
