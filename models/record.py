"""What a file of trained tensors has to say about itself to be worth anything."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from models.adapters import AdapterConfig, Lava, LoRA, adapt
from models.networks import DepthNetwork, NetworkError, NetworkSpec
from models.networks.pretrained import (
    fingerprint,
    load_dinov2,
    load_network,
    recorded_spec,
)
from models.networks.sources import locate

KEY = "lava_depth"
FORMAT_VERSION = 1
METHODS: dict[str, type[AdapterConfig]] = {kind.__name__: kind for kind in (Lava, LoRA)}


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
        recorded = recorded_spec(locate(self.weights))
        return "relative" if recorded is None else recorded.kind


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
        adapter = None
        if self.adapter is not None:
            adapter = {
                "method": type(self.adapter).__name__,
                "options": _plain(dataclasses.asdict(self.adapter)),
            }
        return {
            "format_version": FORMAT_VERSION,
            "network": dataclasses.asdict(self.network),
            "image_size": list(self.image_size),
            "base": dataclasses.asdict(self.base),
            "base_sha256": self.base_sha256,
            "adapter": adapter,
            "scores": self.scores,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Record":
        """The inverse of `to_dict`."""
        version = content["format_version"]
        if version > FORMAT_VERSION:
            raise CheckpointError(
                f"its format version is {version}, this program knows up to "
                f"{FORMAT_VERSION}; update the program"
            )
        adapter = content["adapter"]
        rows, cols = content["image_size"]
        return cls(
            NetworkSpec(**content["network"]),
            (rows, cols),
            Base(**content["base"]),
            content["base_sha256"],
            None
            if adapter is None
            else METHODS[adapter["method"]](**adapter["options"]),
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
        check_tensors(network, saved_names(network, self), tensors)
        network.load_state_dict(tensors, strict=False)
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
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    if record.base.part == "encoder":
        trained |= {n for n in network.state_dict() if n.startswith("depth_head.")}
    if record.adapter is None:
        trained = set(network.state_dict())
    last = "depth_head.scratch.output_conv2.2."
    trained |= {last + "weight", last + "bias"}
    return [name for name in network.state_dict() if name in trained]


def check_tensors(
    network: DepthNetwork, names: Iterable[str], tensors: Mapping[str, Tensor]
) -> None:
    """Refuse missing, unexpected and misshapen tensors before any is loaded."""
    expected = {name: network.state_dict()[name].shape for name in names}
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
        counts = len(missing) + len(unexpected) + len(misshapen)
        raise CheckpointError(
            f"{counts} of its tensors do not fit this configuration: "
            f"{'; '.join(found)}; use the configuration it was trained with"
        )


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
    try:
        record = Record.from_dict(content[KEY])
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return record, network_tensors(content["state_dict"])


def load_checkpoint(path: Path) -> tuple[DepthNetwork, Record]:
    """A trained network, adapters in place, from its checkpoint and its base."""
    record, tensors = read_checkpoint(path)
    try:
        return record.restore(tensors), record
    except (CheckpointError, NetworkError) as error:
        raise CheckpointError(f"{path}: {error}") from None


def network_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's part of a module's state dict, under the network's own names."""
    prefix = "network."
    return {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix)
    }


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
