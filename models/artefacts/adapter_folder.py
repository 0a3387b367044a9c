"""The adapter folder: `adapter.json` and `adapter.safetensors`, what a base lacks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from datamodules.files.whole import whole_folder, write_json
from models.artefacts.checkpoint import restored
from models.artefacts.files import read_json, read_tensors, save_tensors
from models.artefacts.form import Asked, ExportOptions, Form, OpenedModel
from models.artefacts.record import Record
from models.artefacts.records import record_from
from models.errors import CheckpointError, ExportError

N = TypeVar("N", bound=nn.Module)
DESCRIPTION_FILE = "adapter.json"
TENSORS_FILE = "adapter.safetensors"


def save_adapter(network: N, record: Record[N], folder: Path) -> None:
    """Write a trained network as an adapter folder: what its base does not have.

    Args:
        network: With its adapters in place.
        record: How to rebuild it.
        folder: Made if missing. Each file appears whole or not at all.
    """
    state = network.state_dict()
    names = record.saved_names(network)
    write_adapter({name: state[name] for name in names}, record, folder)


def write_adapter(
    tensors: Mapping[str, Tensor], record: Record[Any], folder: Path
) -> None:
    """The same of an adapter whose network is not at hand."""
    description = {"torch": torch.__version__, **record.to_dict()}
    with whole_folder(folder) as new:
        save_tensors(new / TENSORS_FILE, tensors)
        write_json(new / DESCRIPTION_FILE, description)


def load_adapter(folder: Path, base: str | None = None) -> tuple[Any, Record[Any]]:
    """A trained network, adapters in place, from an adapter folder and its base.

    Args:
        folder: Of the adapter.
        base: Where its base is; None leaves it to the folder.

    Raises:
        CheckpointError: As `read_adapter`, or if it does not fit the base.
    """
    record, tensors = read_adapter(folder)
    record = record.on(base)
    return restored(record, tensors, folder), record


def read_adapter(folder: Path) -> tuple[Record[Any], dict[str, Tensor]]:
    """Record and tensors of an adapter folder.

    Raises:
        CheckpointError: If a file is missing or damaged, or of a newer format.
    """
    description = read_json(folder / DESCRIPTION_FILE, CheckpointError)
    record = record_from(description, folder / DESCRIPTION_FILE)
    return record, read_tensors(folder / TENSORS_FILE, CheckpointError)[0]


class AdapterFolder(Form[OpenedModel]):
    """Ours: any method, exact, a few per cent of the whole; needs its base."""

    name = "adapter"
    library = "lava-depth"
    language = "bash"
    usage = "python predict.py PHOTOGRAPHS --model {repo}  # LAVA Depth"
    tolerance = 0.0
    """The very tensors, on the very base."""
    folds_in = False

    def recognises(self, path: Path) -> bool:
        return (path / DESCRIPTION_FILE).is_file()

    def open(self, path: Path, asked: Asked) -> OpenedModel:
        network, record = load_adapter(path, asked.base)
        return record.opened(network, str(path))

    def write(self, opened: OpenedModel, folder: Path, options: ExportOptions) -> None:
        if opened.record is None or opened.record.adapter is None:
            raise ExportError(
                f"{opened.source} has no adapter; --export-format "
                f"{next(iter(opened.forms))} writes a whole network"
            )
        save_adapter(opened.adapted, opened.record, folder)


FORM = AdapterFolder()
