"""The record of whatever network a file describes."""

from collections.abc import Mapping
from typing import Any

from models.artefacts.depth_record import DepthRecord
from models.artefacts.descriptions import KIND
from models.artefacts.families import class_named
from models.artefacts.record import Record


def record_from(content: Mapping[str, Any]) -> Record[Any]:
    """What `Record.to_dict` gave, as the record that it was of.

    Raises:
        CheckpointError: If it names no record of this project.
    """
    if KIND not in content:
        return DepthRecord.from_dict(content)
    kind: type[Record[Any]] = class_named(content[KIND], Record, "models")  # type: ignore[type-abstract]
    return kind.from_dict(content)
