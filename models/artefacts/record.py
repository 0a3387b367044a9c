"""What a file of trained tensors has to say about itself to be worth anything."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from models.adapters import AdapterConfig, AdapterError, adapt
from models.adapters.state import (
    FORMAT_VERSION,
    adapter_names,
    check_version,
    config_of,
    describe,
    load_tensors,
    read_files,
    save_files,
)
from models.artefacts.published.identity import identify
from models.artefacts.published.sources import locate
from models.artefacts.published.weights import (
    fingerprint,
    load_dinov2,
    load_network,
)
from models.networks import DepthNetwork, NetworkError, NetworkSpec

KEY = "lava_depth"
LAST_CONV = "depth_head.scratch.output_conv2.2."
"""Its start may be new (`DepthNetwork.start_at_depth`), so it is always saved."""


class CheckpointError(Exception):
    """A checkpoint that does not belong to this project, base or configuration."""


@dataclass(frozen=True)
class Base:
    """The weights that training starts from and that no checkpoint repeats."""

    weights: str | None
    """As the user gave it: a path, a Hub id or a known name; None is random."""
    part: Literal["network", "encoder"] = "network"
    """`encoder`: only DINOv2's part was loaded, the head began at random."""

    def load(self, spec: NetworkSpec) -> DepthNetwork:
        """A network of `spec` with these weights, whatever kind theirs is."""
        if self.weights is None:
            return DepthNetwork(spec)
        if self.part == "network":
            return load_network(locate(self.weights), spec)
        network = DepthNetwork(spec)
        load_dinov2(network, self.weights)
        return network

    def fingerprint(self, network: DepthNetwork) -> str:
        """SHA-256 of what was loaded, taken before anything is trained."""
        return fingerprint(network.pretrained if self.part == "encoder" else network)

    def kind(self) -> Literal["relative", "metric", "none"]:
        """What the weights predict; `none` where there is no trained head yet."""
        if self.weights is None or self.part == "encoder":
            return "none"
        return identify(locate(self.weights)).kind or "relative"


@dataclass(frozen=True)
class Record:
    """Everything that rebuilds a trained network, but its trained tensors."""

    network: NetworkSpec
    image_size: tuple[int, int]
    """Network input (rows, cols) that it was trained at."""
    base: Base
    base_sha256: str
    adapter: AdapterConfig | None
    scores: dict[str, Any] = field(default_factory=dict)
    """Of the last validation: protocol, n_images and metrics; empty before one."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, so that files load without unpickling classes."""
        return {
            "format_version": FORMAT_VERSION,
            "network": dataclasses.asdict(self.network),
            "image_size": list(self.image_size),
            "base": dataclasses.asdict(self.base),
            "base_sha256": self.base_sha256,
            "adapter": None if self.adapter is None else describe(self.adapter),
            "scores": self.scores,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Record":
        """The inverse of `to_dict`."""
        adapter = content["adapter"]
        rows, cols = content["image_size"]
        return cls(
            NetworkSpec(**content["network"]),
            (rows, cols),
            Base(**content["base"]),
            content["base_sha256"],
            None if adapter is None else config_of(adapter),
            content.get("scores", {}),
        )

    def restore(self, tensors: Mapping[str, Tensor]) -> DepthNetwork:
        """Load the base, put the adapter in, and fill in the trained tensors.

        Raises:
            CheckpointError: If the base is another one or a tensor does not fit.
        """
        if self.base.weights is None and self.adapter is not None:
            raise CheckpointError(
                "its frozen base was random and is not stored; train from real weights"
            )
        if self.adapter is None:
            network = DepthNetwork(self.network)
        else:
            network = self.base.load(self.network)
            self.check_base(self.base.fingerprint(network))
            adapt(network, self.adapter)
        load_tensors(network, saved_names(network, self), tensors)
        return network

    def check_base(self, sha256: str) -> None:
        """Refuse a base that is not the one of this record.

        Where there is no adapter every tensor is stored, and the base is history.
        """
        if self.adapter is not None and sha256 != self.base_sha256:
            raise CheckpointError(
                f"it was trained on the base {self.base.weights or 'random'} with "
                f"SHA-256 {self.base_sha256[:12]}..., but the weights found there now "
                f"have {sha256[:12]}...; give the same base"
            )


def saved_names(network: DepthNetwork, record: Record) -> list[str]:
    """State-dict keys that a checkpoint holds: all that the base does not give.

    Those are the trained tensors and the parts that were new when training began.
    """
    state = list(network.state_dict())
    if record.adapter is None:
        return state
    new = "depth_head." if record.base.part == "encoder" else LAST_CONV
    return adapter_names(network, (name for name in state if name.startswith(new)))


def read_checkpoint(path: Path) -> tuple[Record, dict[str, Tensor]]:
    """Record and trained tensors of a `.ckpt` written by `DepthModule`.

    Raises:
        CheckpointError: If the file is missing, damaged or not one of ours.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Damaged zip, truncated tensor and refused pickle have no common class.
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}); it may "
            "be cut off: use another one of the run's checkpoints"
        ) from None
    if not isinstance(content, dict) or KEY not in content:
        raise CheckpointError(
            f"{path} was not written by this project's training; give a .ckpt from a "
            "run's checkpoints folder"
        )
    check_version(content[KEY], str(path))
    record = Record.from_dict(content[KEY])
    return record, network_tensors(content["state_dict"])


def load_checkpoint(path: Path) -> tuple[DepthNetwork, Record]:
    """A trained network, adapters in place, from its checkpoint and its base."""
    record, tensors = read_checkpoint(path)
    return _restored(record, tensors, path), record


def save_adapter(network: DepthNetwork, record: Record, folder: Path) -> None:
    """Write a trained network as an adapter folder: what its base does not have."""
    state = network.state_dict()
    names = saved_names(network, record)
    save_files(folder, record.to_dict(), {name: state[name] for name in names})


def load_adapter(folder: Path) -> tuple[DepthNetwork, Record]:
    """A trained network, adapters in place, from an adapter folder and its base."""
    description, tensors = read_files(folder)
    record = Record.from_dict(description)
    return _restored(record, tensors, folder), record


def _restored(record: Record, tensors: dict[str, Tensor], path: Path) -> DepthNetwork:
    try:
        return record.restore(tensors)
    except (CheckpointError, NetworkError, AdapterError) as error:
        raise CheckpointError(f"{path}: {error}") from None


def network_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's part of a module's state dict, under the network's own names."""
    prefix = "network."
    return {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix)
    }
