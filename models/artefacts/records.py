"""The record of whatever network a file describes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.artefacts.depth_record import DepthRecord
from models.artefacts.descriptions import KIND, check_depth, check_version, readable
from models.artefacts.families import class_named
from models.artefacts.files import KEY
from models.artefacts.record import Record


def record_from(content: Mapping[str, Any], origin: Path | str) -> Record[Any]:
    """What `Record.to_dict` gave, as the record that it was of.

    Args:
        content: From a file, so that anything may be in it.
        origin: What it is from, for messages.

    Raises:
        CheckpointError: If it is of a newer program, names no record of this project,
            or an entry is missing or strange.
    """
    check_version(content, str(origin))
    with readable(origin):
        if KIND not in content:
            return DepthRecord.from_dict(content)
        kind: type[Record[Any]] = class_named(content[KIND], Record, "models")  # type: ignore[type-abstract]
        return kind.from_dict(content)


def depth_record_from(content: Mapping[str, Any], origin: Path | str) -> DepthRecord:
    """The same of a network that predicts depth.

    Raises:
        CheckpointError: As `record_from`, or if it is of another kind of model.
    """
    check_version(content, str(origin))
    check_depth(content, str(origin))
    record = record_from(content, origin)
    assert isinstance(record, DepthRecord)
    return record


def description_in(notes: Mapping[str, str], path: Path) -> dict[str, Any] | None:
    """What this program wrote into the metadata of a safetensors file; None if nothing.

    Raises:
        CheckpointError: If that is damaged.
    """
    if KEY not in notes:
        return None
    with readable(path):
        description: dict[str, Any] = dict(json.loads(notes[KEY]))
    return description
