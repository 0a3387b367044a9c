"""Recipes of single adapters that one mixed run can have together."""

from collections.abc import Callable, Mapping
from typing import Any

from models.artefacts.checkpoint import ADAPTERS
from models.artefacts.depth_record import DepthRecord
from models.artefacts.records import depth_record_from
from models.depth_module import DepthModule
from models.errors import CheckpointError, OptionError
from models.networks.interface import camera_of
from models.resuming import INSTEAD, check_same, description_of

Recipe = Callable[[float, tuple[int, int]], DepthModule]
"""A module by its options, which waits for max_depth and image_size."""


def checked(name: str, alone: DepthModule) -> DepthModule:
    """What a recipe made, if it can be one of several.

    Raises:
        OptionError: Saying what it lacks.
    """
    if alone.record.adapter is None:
        raise OptionError(
            f"model.adapters {name} trains the whole network (adapter: null), and a "
            "mixed run has one base for all; give it an adapter"
        )
    if alone.record.base.weights is None:
        raise OptionError(
            f"model.adapters {name} begins at random weights, and a mixed run has one "
            "base for all; give it weights"
        )
    return alone


def check_cameras(records: Mapping[str, DepthRecord]) -> None:
    """Refuse adapters for different cameras: a batch has frames of all.

    Raises:
        OptionError: With the focal length of each.
    """
    found = {name: camera_of(record.network) for name, record in records.items()}
    if len(set(found.values())) > 1:
        told = ", ".join(f"{name} {focal_px}" for name, focal_px in found.items())
        raise OptionError(
            f"the adapters' canonical_focal_px differ ({told}), and a batch has frames "
            "of all; give all of them the same camera"
        )


def records_of(
    checkpoint: Mapping[str, Any], own: Mapping[str, DepthRecord]
) -> dict[str, DepthRecord]:
    """The records of a mixed run's checkpoint of the same adapters' names.

    Their order has to be the same, too: by it the optimiser knows its groups, and the
    router its answers.

    Raises:
        CheckpointError: If it is of one adapter, of others, or in another order.
    """
    description = description_of(checkpoint)
    records = description.get(ADAPTERS)
    if records is None:
        raise CheckpointError(
            "the checkpoint is of one adapter, and the configuration asks for several; "
            "use the configuration it was trained with"
        )
    if [*records] != [*own]:
        if records.keys() == own.keys():
            raise CheckpointError(
                f"the checkpoint has the adapters in the order {said(records)}, but "
                f"the configuration in the order {said(own)}; give the first one"
            )
        raise CheckpointError(
            f"the checkpoint has the adapters {said(records)}, but the configuration "
            f"asks for {said(own)}; use {INSTEAD}"
        )
    return {
        name: check_same(depth_record_from(record, f"its adapter {name}"), own[name])
        for name, record in records.items()
    }


def said(names: Mapping[str, Any]) -> str:
    """Names in a message."""
    return ", ".join(names) or "none"
