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
_GUESSES = 2


def likely_unit(stored: float) -> str:
    """What a stored median may be: "millimetres: 1.5 m (depth_scale 1000)"."""
    found = [
        f"{name}: {stored / scale:.3g} m (depth_scale {scale})"
        for scale, name in _UNITS
        if is_likely(stored / scale)
    ]
    if not found and stored < _LIKELY_M[0]:
        return "normalised, inverse or relative depth, which has no metres"
    return " or ".join(found[:_GUESSES]) or "no depth in a common unit"


def is_likely(median_m: float) -> bool:
    """Whether it is the median of an ordinary depth map in metres."""
    return _LIKELY_M[0] <= median_m <= _LIKELY_M[1]
