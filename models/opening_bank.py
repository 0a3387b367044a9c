"""A bank of depth adapters, and their router, from what is on disk."""

from dataclasses import replace
from typing import Any

from datamodules.sizes import InputSize
from models.artefacts.base import Base
from models.artefacts.depth_record import DepthRecord
from models.artefacts.mixed import Several
from models.artefacts.published.identity import identify
from models.artefacts.published.sources import locate
from models.depth_bank import DepthBank, unit_spec
from models.errors import CheckpointError
from models.networks.interface import OutputSpec
from models.router import Router, router_of


def open_bank(several: Several, weights: str | None = None) -> DepthBank:
    """Adapters over one network.

    Args:
        several: At least one adapter.
        weights: Their base; None takes the one that they say themselves.

    Raises:
        UserError: Naming the adapter that is of another base, or damaged.
    """
    records = [a.record for a in several.adapters.values() if a.record is not None]
    if not records:
        raise CheckpointError(
            f"no adapter of {several.source} says which network it is for; give "
            "adapters that were trained here"
        )
    record = records[0]
    base = record.base
    if weights is not None:
        base = Base.found(weights, record.base.part)
    network = record.family(unit_spec(record))
    base.fill(network)
    bank = DepthBank(network.eval(), *_by_itself(base, record))
    for name, adapter in several.adapters.items():
        bank.add(name, adapter)
    return bank


def open_router(several: Several, bank: DepthBank) -> Router:
    """The router that chooses among a bank's adapters.

    Raises:
        UserError: If there is none, or it is for others.
    """
    if several.router is None:
        raise CheckpointError(
            f"{several.source} has no router, which --route chooses by; train one "
            "beside the adapters (model.router true), or name them with --adapter or "
            "--adapter-of"
        )
    router = router_of(several.router).eval()
    router.check(bank, several.router.source)
    return router


def _by_itself(
    base: Base, record: DepthRecord
) -> tuple[OutputSpec | None, InputSize | None]:
    """What a base predicts, and its input; None if it has no head, or nothing tells."""
    if base.weights is None or base.part == "encoder":
        return None, None
    found = identify(locate(base.weights))
    if found.kind != "metric" or found.max_depth is None:
        return None, None
    spec: Any = record.network
    own = replace(spec, kind="metric", max_depth=found.max_depth)
    if hasattr(own, "canonical_focal_px"):
        own = replace(own, canonical_focal_px=found.canonical_focal_px)
    return own, found.image_size
