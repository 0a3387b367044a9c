"""Open whatever a user calls a model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from models.artefacts import FORMS, LANGUAGE_FORMS, form_named
from models.artefacts.adapter_folder import FORM as FOLDER
from models.artefacts.adapter_folder import read_adapter
from models.artefacts.checkpoint import load_checkpoint, read_checkpoint
from models.artefacts.depth_adapter import DepthAdapter
from models.artefacts.depth_record import DepthRecord
from models.artefacts.files import KEY, read_torch
from models.artefacts.form import Asked, OpenedModel
from models.artefacts.merged import FORM as MERGED
from models.artefacts.peft.form import FORM as PEFT
from models.artefacts.published.sources import locate
from models.artefacts.record import Record
from models.errors import CheckpointError


def open_model(source: str, asked: Asked | None = None) -> OpenedModel:
    """Load any form that the project writes, or weights of others.

    Args:
        source: A `.ckpt`, an adapter folder, a PEFT folder, a merged or `transformers`
            folder, an ONNX program, an official `.pth` or `.safetensors`, a name that
            the project knows, or a Hub id.
        asked: What the file does not say itself.

    Raises:
        UserError: Saying what does not fit.
    """
    asked = asked or Asked()
    path = Path(source).expanduser()
    if path.suffix != ".ckpt":
        path = locate(source)
    if path.suffix == ".ckpt" and (not path.exists() or _is_ours(path)):
        _check_network(asked, source)
        network, record = load_checkpoint(path, asked.base)
        return record.opened(network, source)
    # The merged folder's form comes last: it takes what has no other.
    forms = [form_named(n, of) for of in (LANGUAGE_FORMS, FORMS) for n in of]
    own = next((f for f in forms if f is not MERGED and f.recognises(path)), MERGED)
    if own is not MERGED:
        _check_network(asked, source)
    if own.folds_in and asked.base is not None:
        raise CheckpointError(
            f"--base {asked.base} has no effect: {source} is a whole network; leave it "
            "out"
        )
    return replace(own.open(path, asked), source=source)


def open_adapter(source: str | Path, asked: Asked | None = None) -> DepthAdapter:
    """An adapter apart from its base, for an `AdapterBank`.

    Args:
        source: A `.ckpt`, an adapter folder or a PEFT folder, or a Hub id of one.
        asked: The base of a PEFT folder, if it is not the one that it says.

    Raises:
        UserError: If it is no adapter, or damaged.
    """
    path = Path(source).expanduser()
    if path.suffix != ".ckpt":
        path = locate(str(source))
    if path.suffix == ".ckpt":
        return _adapter(*read_checkpoint(path), str(source))
    if FOLDER.recognises(path):
        return _adapter(*read_adapter(path), str(source))
    if PEFT.recognises(path):
        found = PEFT.open_adapter(path, asked or Asked())
        return replace(found, source=str(source))
    raise CheckpointError(
        f"{source} is no adapter; give a checkpoint (.ckpt), an adapter folder or a "
        "PEFT folder"
    )


def _adapter(
    record: Record[Any], tensors: dict[str, Tensor], source: str
) -> DepthAdapter:
    if not isinstance(record, DepthRecord):
        raise CheckpointError(
            f"{source} is of {record.network}, not of a depth network; open it as a "
            "model"
        )
    return DepthAdapter.of(record, tensors, source)


def _check_network(asked: Asked, source: str) -> None:
    if asked.network is not None:
        raise CheckpointError(
            f"--network {asked.network} has no effect: {source} says itself what it is"
        )


def _is_ours(path: Path) -> bool:
    """Whether a checkpoint is of this project's training."""
    content = read_torch(path, CheckpointError)
    return not isinstance(content, dict) or KEY in content
