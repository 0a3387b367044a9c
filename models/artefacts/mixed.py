"""Several adapters of one base on disk: a mixed run's checkpoint, a folder of folders.

The folder has `NAME/adapter.json` and `NAME/adapter.safetensors` for each, which are
adapter folders by themselves, and `router.safetensors`, if there is a router.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from models.artefacts.adapter_folder import DESCRIPTION_FILE
from models.artefacts.checkpoint import ADAPTERS, checkpoint_content, restored
from models.artefacts.depth_adapter import DepthAdapter
from models.artefacts.files import KEY, NAMED, read_tensors, read_torch
from models.artefacts.form import Opened
from models.artefacts.opening import open_adapter
from models.artefacts.published.identity import ADAPTER_FILES
from models.artefacts.records import depth_record_from
from models.errors import CheckpointError

ROUTER = "router"
ROUTER_FILE = f"{ROUTER}.safetensors"

MEMBERS = "bank.adapters.members."
"""Before the names of their tensors in a checkpoint."""


@dataclass(frozen=True)
class StoredRouter:
    """A router as it is stored: `models.router` makes one of it."""

    tensors: dict[str, Tensor]
    notes: dict[str, str]
    source: str


@dataclass(frozen=True)
class Several:
    """Adapters by name, and the router that was trained beside them."""

    adapters: Mapping[str, DepthAdapter]
    router: StoredRouter | None
    source: str

    def one(self, name: str, weights: str | None = None) -> Opened:
        """One adapter on its base, as if it had been trained alone.

        Args:
            name: Which.
            weights: Its base, where that is not the one that it says itself.

        Raises:
            CheckpointError: If there is none of this name, or it does not fit.
        """
        check_names([name], tuple(self.adapters), self.source)
        adapter = self.adapters[name]
        record = adapter.record
        if record is None:
            raise CheckpointError(
                f"{adapter.source} does not say which base it is for; give it as "
                "--model, with --base"
            )
        record = record.on(weights)
        path = Path(self.source)
        network = restored(record, dict(adapter.tensors), path)
        return Opened(network, record, record.image_size, self.source)


def is_mixed(path: Path) -> bool:
    """Whether a file is the checkpoint of a mixed run."""
    if path.suffix != ".ckpt" or not path.is_file():
        return False
    content = read_torch(path, CheckpointError)
    return isinstance(content, dict) and ADAPTERS in content.get(KEY, {})


def read_mixed(path: Path) -> Several:
    """All adapters of a mixed run, and its router.

    Raises:
        CheckpointError: If the file is damaged or not of a mixed run.
    """
    content = checkpoint_content(path)
    description, state = content[KEY], content["state_dict"]
    if ADAPTERS not in description:
        raise CheckpointError(f"{path} holds one adapter; give it as --model alone")
    adapters = {
        name: DepthAdapter.of(
            depth_record_from(record, f"{path} ({name})"),
            below(state, f"{MEMBERS}{name}."),
            f"{path} ({name})",
        )
        for name, record in description[ADAPTERS].items()
    }
    router, notes = None, description.get(ROUTER)
    if notes is not None:
        tensors = below(state, f"{ROUTER}.")
        router = StoredRouter(tensors, notes, f"the router of {path}")
    return Several(adapters, router, str(path))


def read_several(folder: Path, wanted: Collection[str] | None = None) -> Several:
    """Adapters of a folder of adapter folders, and its router.

    Args:
        folder: With `NAME/adapter.json` for each; PEFT folders, too.
        wanted: Which are read; None for all.

    Raises:
        CheckpointError: If there are none, or not those, or one is damaged.
    """
    if not folder.is_dir():
        raise CheckpointError(f"--adapters {folder}: there is no such folder")
    names = sorted(
        {
            path.parent.name
            for kind in ADAPTER_FILES
            for path in folder.glob(f"*/{kind}")
        }
    )
    if not names:
        alone = any((folder / kind).is_file() for kind in ADAPTER_FILES)
        hint = f"; it is an adapter itself: give {folder.parent}" if alone else ""
        raise CheckpointError(
            f"--adapters {folder} has no NAME/{DESCRIPTION_FILE}, which `predict.py "
            f"--model MIXED.ckpt --export DIR --export-format adapter` writes{hint}"
        )
    if wanted is not None:
        check_names(wanted, names, f"--adapters {folder}")
        names = [name for name in names if name in wanted]
    adapters = {name: open_adapter(folder / name) for name in names}
    return Several(adapters, stored_router(folder), str(folder))


def stored_router(folder: Path) -> StoredRouter | None:
    """The router in a folder of adapter folders; None if there is none.

    Raises:
        CheckpointError: If it is damaged.
    """
    path = folder / ROUTER_FILE
    if not path.is_file():
        return None
    return StoredRouter(*read_tensors(path, CheckpointError), str(path))


def check_names(wanted: Iterable[str], there: Collection[str], source: str) -> None:
    """Refuse names of adapters that there are not.

    Raises:
        CheckpointError: With those that there are.
    """
    if missing := [name for name in wanted if name not in there]:
        more = f" and {len(there) - NAMED} more" if len(there) > NAMED else ""
        known = ", ".join(list(there)[:NAMED]) + more
        raise CheckpointError(
            f"{source} has no adapter {', '.join(map(repr, missing[:3]))}; it has "
            f"{known}"
        )


def below(state: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    """The tensors of a state dict whose names begin with a prefix, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix) and isinstance(value, Tensor)
    }
