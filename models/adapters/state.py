"""Adapter files: `adapter.json` and `adapter.safetensors`, strict both ways."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.adapters.base import AdapterConfig, AdapterError
from models.adapters.methods.dora import DoRA
from models.adapters.methods.lava import Lava
from models.adapters.methods.lora import LoRA
from models.adapters.methods.svdiff import SVDiff
from models.adapters.methods.train_fully import TrainFully
from models.adapters.methods.tucker import Tucker
from models.adapters.trained import trained_tensors

DESCRIPTION_FILE = "adapter.json"
TENSORS_FILE = "adapter.safetensors"
FORMAT_VERSION = 1
METHODS: dict[str, type[AdapterConfig]] = {
    method.__name__: method for method in (Lava, LoRA, DoRA, Tucker, SVDiff, TrainFully)
}


def adapter_names(network: nn.Module, also: Iterable[str] = ()) -> list[str]:
    """State-dict keys that make an adapter: its own tensors and all that is trained.

    A tensor that is known under several names has the first of them.

    Args:
        network: With adapters in place.
        also: More keys to count in, such as layers that were new when training began.
    """
    wanted = trained_tensors(network).keys() | set(also)
    return [name for name in network.state_dict() if name in wanted]


def load_tensors(
    network: nn.Module, names: Iterable[str], tensors: Mapping[str, Tensor]
) -> None:
    """Fill in adapter tensors, all of them or none.

    Raises:
        AdapterError: Naming missing, unexpected and misshapen tensors.
    """
    check_tensors(network, names, tensors)
    network.load_state_dict(tensors, strict=False)


def check_tensors(
    network: nn.Module, names: Iterable[str], tensors: Mapping[str, Tensor]
) -> None:
    """Refuse missing, unexpected and misshapen tensors before any is loaded."""
    state = network.state_dict()
    expected = {name: state[name].shape for name in names}
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - expected.keys())
    misshapen = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    problems = (("missing", missing), ("unexpected", unexpected), ("shape", misshapen))
    found = [f"{what} {', '.join(names[:3])}" for what, names in problems if names]
    if found:
        count = len(missing) + len(unexpected) + len(misshapen)
        raise AdapterError(
            f"{count} of its tensors do not fit this configuration: "
            f"{'; '.join(found)}; use the configuration it was trained with"
        )


def save_files(
    folder: Path, description: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write an adapter folder; each file appears whole or not at all.

    Args:
        folder: Made if missing.
        description: What rebuilds the network around the tensors; plain types.
        tensors: The adapter's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = {
        name: value.detach().cpu().contiguous() for name, value in tensors.items()
    }
    part = folder / f".{TENSORS_FILE}.part"
    save_file(stored, part, metadata={"format": "pt"})
    text = folder / f".{DESCRIPTION_FILE}.part"
    whole = {
        "format_version": FORMAT_VERSION,
        "torch": torch.__version__,
        **description,
    }
    text.write_text(json.dumps(whole, indent=2) + "\n")
    part.replace(folder / TENSORS_FILE)
    text.replace(folder / DESCRIPTION_FILE)


def read_files(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and tensors of an adapter folder.

    Raises:
        AdapterError: If a file is missing or damaged, or of a newer format.
    """
    path = folder / DESCRIPTION_FILE
    try:
        description = json.loads(path.read_text())
    except OSError as error:
        raise AdapterError(f"{path} cannot be read ({error.strerror})") from None
    except ValueError:
        raise AdapterError(
            f"{path} is not valid JSON; save the adapter again"
        ) from None
    check_version(description, str(folder))
    weights = folder / TENSORS_FILE
    try:
        tensors = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise AdapterError(
            f"{weights} cannot be read ({str(error).splitlines()[0]}); it may be "
            "missing or cut off: copy it again"
        ) from None
    return description, tensors


def check_version(description: Mapping[str, Any], origin: str) -> None:
    """Refuse what was written by a newer version of this program."""
    version = description.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise AdapterError(
            f"{origin}: its format version is {version}, this program knows up to "
            f"{FORMAT_VERSION}; update the program"
        )


def describe(config: AdapterConfig) -> dict[str, Any]:
    """Method and options in plain types."""
    options = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(config).items()
    }
    return {"method": type(config).__name__, "options": options}


def config_of(description: Mapping[str, Any]) -> AdapterConfig:
    """The inverse of `describe`."""
    method = METHODS.get(description["method"])
    if method is None:
        raise AdapterError(
            f"method {description['method']!r} is not known; this program has "
            f"{', '.join(METHODS)}"
        )
    known = {field.name for field in dataclasses.fields(method)}
    strange = sorted(description["options"].keys() - known)
    if strange:
        raise AdapterError(
            f"{method.__name__} has no option {strange[0]!r}; update the program"
        )
    return method(**description["options"])
