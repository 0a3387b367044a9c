"""Which unit stored depths are likely to be in, in words."""

PLAUSIBLE_M = (0.1, 100.0)
"""What the median of a depth map may be, in metres."""
_LIKELY_M = (0.4, 30.0)
"""What the median of a room or a street is."""
_UNITS = (
    (1, "metres"),
    (1000, "millimetres"),
    (256, "KITTI's 1/256 m"),
    (100, "centimetres"),
    (5000, "TUM's 1/5000 m"),
    (10000, "tenths of millimetres"),
)
"""Units per metre and their names, the commonest first."""


def likely_unit(stored: float, most: int = 2) -> str:
    """What a stored median may be: "millimetres: 1.5 m (depth_scale 1000)".

    Args:
        stored: The median of depth maps as they are stored.
        most: So many guesses.
    """
    low, high = _LIKELY_M
    found = [
        f"{name}: {stored / scale:.3g} m (depth_scale {scale})"
        for scale, name in _UNITS
        if low <= stored / scale <= high
    ]
    if not found and stored < low:
        return "normalised, inverse or relative depth, which has no metres"
    return " or ".join(found[:most]) or "no depth in a common unit"
