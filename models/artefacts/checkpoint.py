"""The checkpoint of a training: `.ckpt`, what was trained and where training stood."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from datamodules.errors import UserError
from models.artefacts.descriptions import check_version
from models.artefacts.files import KEY, read_torch
from models.artefacts.record import Record
from models.artefacts.records import record_from
from models.errors import CheckpointError

N = TypeVar("N", bound=nn.Module)
ADAPTERS = "adapters"
"""Under which the description of a mixed run has the record of each of them."""


def read_checkpoint(path: Path) -> tuple[Record[Any], dict[str, Tensor]]:
    """Record and trained tensors of a `.ckpt` written by a `TaskModule`.

    Raises:
        CheckpointError: If the file is missing, damaged or not one of ours, or of
            several adapters.
    """
    content = checkpoint_content(path)
    if names := content[KEY].get(ADAPTERS):
        raise CheckpointError(
            f"{path} is of a mixed run and holds the adapters {', '.join(names)}; name "
            "one with --adapter"
        )
    return record_from(content[KEY], path), network_tensors(content["state_dict"])


def checkpoint_content(path: Path) -> dict[str, Any]:
    """All that is in a `.ckpt` of this project's training.

    Raises:
        CheckpointError: If the file is missing, damaged or not one of ours.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint file")
    content = read_torch(path, CheckpointError)
    if not isinstance(content, dict) or KEY not in content:
        raise CheckpointError(
            f"{path} was not written by this project's training; give a .ckpt from a "
            "run's checkpoints folder"
        )
    check_version(content[KEY], str(path))
    return content


def load_checkpoint(path: Path, base: str | None = None) -> tuple[Any, Record[Any]]:
    """A trained network, adapters in place, from its checkpoint and its base.

    Args:
        path: Of the checkpoint.
        base: Where its base is; None leaves it to the checkpoint.
    """
    record, tensors = read_checkpoint(path)
    record = record.on(base)
    return restored(record, tensors, path), record


def restored(record: Record[N], tensors: dict[str, Tensor], path: Path) -> N:
    """The network of a file, whose name goes before whatever is wrong with it."""
    try:
        return record.restore(tensors)
    except UserError as error:
        raise CheckpointError(f"{path}: {error}") from None


def network_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's part of a module's state dict, under the network's own names."""
    prefix = "network."
    return {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix)
    }
