"""What holds for all predictions in a folder, and makes older ones stale."""

from dataclasses import fields

from app.prediction.model import Model
from app.prediction.options import Prediction

NEUTRAL = (
    *("images", "output", "formats", "overwrite"),
    *("batch_size", "workers", "accelerator", "devices"),
)
"""Options that change which files are written, where, how fast: not what is in them."""
RESOLVED = ("depth_scale", "size", "shrink", "points", "engine")
"""Options whose meaning for this model stands in their place."""
NOT_GIVEN = "not given"
DEFAULTS: dict[str, object] = {"points_sha256": NOT_GIVEN} | {
    option.name: NOT_GIVEN if option.default is None else option.default
    for option in fields(Prediction)
    if option.name not in NEUTRAL + RESOLVED
}
"""What a header says that was written before there was such an option."""


def header(
    model: Model,
    prediction: Prediction,
    scale: int,
    points_sha256: str | None = None,
) -> dict[str, object]:
    """The model and every option that a file's content depends on.

    Args:
        model: What predicts, before it is `ready`.
        prediction: What was asked for.
        scale: Units per metre of 16-bit PNGs; 0 where none are written.
        points_sha256: Of the known points that make metres of what is predicted.
    """
    about = {
        **model.about(prediction),
        "png_units_per_metre": scale or None,
        "points_sha256": points_sha256 or NOT_GIVEN,
    }
    if points_sha256:
        about["unit"] = "metres"
    for name in DEFAULTS:
        if name in about:
            continue
        value = getattr(prediction, name)
        about[name] = NOT_GIVEN if value is None else value
    return about
