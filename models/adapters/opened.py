"""An adapter apart from any network: what a file of one holds, and a bank takes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from models.adapters.base import AdapterConfig, AdapterError


@dataclass(frozen=True)
class OpenedAdapter:
    """A trained adapter; a subclass that knows a form on disk says how to save it.

    What else belongs to it (the range of a depth network, the size of its images, its
    scores) stands in the subclass, and nothing here looks at it.
    """

    config: AdapterConfig
    """Method, options and targets."""
    tensors: Mapping[str, Tensor]
    """All that its base does not have, by state-dict names: the increments' factors,
    layers trained in full, running statistics."""
    base_sha256: str | None
    """`fingerprint` of the base that it was trained on; None where nothing tells."""
    base_part: str = ""
    """The submodule that the fingerprint is of; "" for the whole network."""
    source: str = "the adapter"
    """What it is called in messages."""

    def save(self, folder: Path) -> None:
        """Write it as an adapter folder, bit by bit what it is here.

        Raises:
            AdapterError: If it does not know how.
        """
        raise AdapterError(
            f"{self.source} does not say which base it is for, so no file could be "
            "opened again; open it with models.artefacts.open_adapter"
        )


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of a module's state dict.

    Equal for equal weights in whatever file they came.
    """
    return digest(module.state_dict())


def digest(tensors: Mapping[str, Tensor]) -> str:
    """The same of any tensors by name."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().cpu().contiguous()
        found.update(f"{name} {flat.dtype} {tuple(flat.shape)}\n".encode())
        found.update(flat.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
