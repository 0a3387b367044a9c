"""How a prediction meets its truth, and what a test of many came to."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from datamodules.batch import DepthBatch
from datamodules.protocols import Protocol
from models.alignment import Align, aligned
from models.boundary import BoundaryScores
from models.metrics import METRICS, per_image
from models.resizing import resize_each
from models.scoring import Scoring
from models.task_module import Row, Told


def met(depth: Tensor, batch: DepthBatch, protocol: Protocol, align: Align) -> Tensor:
    """Predictions (B, 1, h, w) as a protocol compares them with the truth.

    Resized to each truth's own size, fitted to it where that is asked for, and clamped
    to the protocol's range, of which what is fitted keeps the lower end in any case.

    Returns:
        (B, 1, H, W), the shape of the batch's truth.
    """
    target, valid = batch["depth"], batch["valid"]
    shape = target.shape[-2:]
    depth = resize_each(depth, batch["size"], shape, protocol.align_corners)
    depth = aligned(depth, target, valid, align, protocol.max_depth)
    low, high = protocol.min_depth, protocol.max_depth
    if protocol.clamp:
        return depth.nan_to_num(low, posinf=high).clamp(low, high)
    # A fitted shift may lead below 0 m, for which no ratio and no logarithm is meant.
    return depth if align == "none" else depth.clamp(min=low)


def rows_of(depth: Tensor, batch: DepthBatch, protocol: Protocol) -> list[Row]:
    """Scores of each image of a batch; those without a valid pixel are left out.

    Args:
        depth: (B, 1, H, W) metres, as large as the truth.
        batch: With the truth.
        protocol: Whose SILog is taken.
    """
    valid = batch["valid"]
    scores = per_image(depth, batch["depth"], valid, protocol.silog).tolist()
    counted = valid.flatten(1).any(1).tolist()
    return [
        {"image": path, **dict(zip(METRICS, own, strict=True))}
        for path, own, counts in zip(batch["path"], scores, counted, strict=True)
        if counts
    ]


def told_of_test(
    source: str,
    protocol: Protocol,
    scoring: Scoring,
    metrics: Row,
    counts: tuple[int, int],
    edges: BoundaryScores | None = None,
    each: Sequence[Row] = (),
) -> Told:
    """What a test came to, for people and for files.

    Args:
        source: Of mixed data; empty for the only one.
        protocol: The rules.
        scoring: What was done beside them.
        metrics: Means over images.
        counts: Images that were averaged, and those without a valid pixel.
        edges: Where they were scored.
        each: Scores of single images, where they are wanted.
    """
    images, empty = counts
    notes = []
    if edges is not None:
        notes.append(
            f"boundary F1 {edges.f1:.4f} of {edges.n_images} images; "
            f"{edges.n_without_edges} have no edge and were not averaged"
        )
    if empty:
        notes.append(f"{empty} images had no valid pixel and were not averaged")
    content: Mapping[str, object] = {
        **({"source": source} if source else {}),
        "protocol": protocol.name,
        "n_images": images,
        "metrics": metrics,
        "align": scoring.align,
        "flip_tta": scoring.flip_tta,
        "boundary": edges and edges._asdict(),
        "n_empty": empty,
    }
    return Told(
        heading=f"{source}: protocol {protocol.name}, {images} images".removeprefix(
            ": "
        ),
        rows={scoring.label: metrics},
        content=content,
        notes=[*notes, *count_warning(protocol, images)],
        name=(f"{source}_" if source else "") + protocol.name + scoring.suffix,
        counted=images + empty,
        unit="images",
        each=each,
    )


def count_warning(protocol: Protocol, images: int) -> list[str]:
    """A line that says so where a score is not of the protocol's own list."""
    if protocol.n_images in (None, images):
        return []
    return [
        f"WARNING: {protocol.name} has {protocol.n_images} images, but {images} were "
        "scored: this is not the number of the literature"
    ]
