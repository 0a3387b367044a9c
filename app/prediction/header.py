"""What holds for all predictions in a folder, and makes older ones stale."""

from dataclasses import fields

from app.prediction.model import Model
from app.prediction.options import Prediction

NEUTRAL = (
    *("images", "output", "formats", "overwrite"),
    *("batch_size", "workers", "accelerator", "devices"),
)
"""Options that change which files are written, where, how fast: not what is in them."""
RESOLVED = ("depth_scale", "size", "shrink", "points")
"""Options whose meaning for this model stands in their place."""


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
        "points_sha256": points_sha256 or "not given",
    }
    if points_sha256:
        about["unit"] = "metres"
    for option in fields(Prediction):
        if option.name not in NEUTRAL + RESOLVED:
            value = getattr(prediction, option.name)
            about[option.name] = "not given" if value is None else value
    return about
