"""What holds for all predictions in a folder, and makes older ones stale."""

from dataclasses import fields

from app.prediction.options import Prediction
from datamodules.sizes import InputSize, Shrink
from models.artefacts.form import Opened

NEUTRAL = (
    *("images", "output", "formats", "overwrite"),
    *("batch_size", "workers", "accelerator", "devices"),
)
"""Options that change which files are written, where, how fast: not what is in them."""
RESOLVED = ("depth_scale", "size", "shrink", "points")
"""Options whose meaning for this model stands in their place."""


def header(
    opened: Opened,
    prediction: Prediction,
    wanted: InputSize,
    shrink: Shrink,
    scale: int,
    points_sha256: str | None = None,
) -> dict[str, object]:
    """The model and every option that a file's content depends on.

    Args:
        opened: The model, before its adapters are folded in.
        prediction: What was asked for.
        wanted: The network's input.
        shrink: How larger pictures are brought to it.
        scale: Units per metre of 16-bit PNGs; 0 where none are written.
        points_sha256: Of the known points that make metres of what is predicted.
    """
    spec = opened.network.spec
    about: dict[str, object] = {
        "model": opened.source,
        "sha256": opened.fingerprint,
        "kind": spec.kind,
        "unit": "metres" if points_sha256 else opened.network.unit,
        "max_depth": spec.max_depth,
        "canonical_focal_px": opened.network.canonical_focal_px,
        "png_units_per_metre": scale or None,
        "input_size": list(wanted) if isinstance(wanted, tuple) else wanted,
        "image_shrink": shrink,
        "points_sha256": points_sha256 or "not given",
    }
    for option in fields(Prediction):
        if option.name not in NEUTRAL + RESOLVED:
            value = getattr(prediction, option.name)
            about[option.name] = "not given" if value is None else value
    return about
