"""One frozen depth network, many adapters, and for every picture what its own says.

`AdapterBank` knows nothing of depth. What is depth's own is applied here, example by
example: the range that an adapter was trained for, and the camera that it predicts for.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from datamodules.sizes import InputSize
from models.adapters import AdapterBank, AdapterError
from models.artefacts.depth_adapter import DepthAdapter
from models.artefacts.depth_record import DepthRecord
from models.networks.interface import DepthPredictor, Network, OutputSpec, camera_of

OF_EACH = ("kind", "max_depth", "canonical_focal_px")
"""What adapters of one network may differ in."""


class DepthBank(DepthPredictor):
    """A depth network under a bank: images in, metres of each one's adapter out.

    ```python
    with bank.select(["kitchen", "street"]):
        depth = bank(images)
    ```

    Args:
        network: The base, without adapters, in the range of 1 m where its output is a
            share of its range (`unit_network`).
        base: What the base says of itself as it is; None, or relative, if nothing can
            be predicted without an adapter.
        base_size: The input that the base by itself is made for; None where nothing
            tells.
    """

    def __init__(
        self,
        network: Network,
        base: OutputSpec | None = None,
        base_size: InputSize | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.adapters = AdapterBank(network)
        self.base, self.base_size = base, base_size
        self.spec = network.spec
        self.patch_px = network.patch_px
        self.image_mean, self.image_std = network.image_mean, network.image_std

    @property
    def names(self) -> tuple[str, ...]:
        """Of all adapters."""
        return self.adapters.names

    def add(self, name: str, adapter: DepthAdapter, *, trainable: bool = False) -> None:
        """Take in an adapter, as `AdapterBank.add`.

        Raises:
            AdapterError: Likewise, or if it says not what it predicts, or is of
                another network.
        """
        if adapter.record is None:
            raise AdapterError(
                f"{name}: {adapter.source} does not say up to which depth it predicts; "
                "give an adapter that was trained here"
            )
        own, asked = _shared(self.network.spec), _shared(adapter.record.network)
        if own != asked:
            raise AdapterError(
                f"{name}: {adapter.source} is of a network {_said(asked)}, and the "
                f"base is {_said(own)}; give an adapter of the same base"
            )
        self.adapters.add(name, adapter, trainable=trainable)

    def record(self, name: str) -> DepthRecord:
        """What an adapter says of itself.

        Raises:
            AdapterError: If there is none of this name.
        """
        return self.opened(name).record  # type: ignore[return-value]

    def opened(self, name: str) -> DepthAdapter:
        """An adapter as it is now, apart from the network.

        Raises:
            AdapterError: If there is none of this name.
        """
        found = self.adapters.opened(name)
        assert isinstance(found, DepthAdapter)
        return found

    @contextmanager
    def select(self, names: str | Sequence[str | None] | None) -> Iterator[None]:
        """Within the block the bank computes with these, as `AdapterBank.select`.

        Raises:
            AdapterError: Likewise, or for the base where it predicts no metres.
        """
        plain = names is None or (not isinstance(names, str) and None in names)
        if plain and (self.base is None or self.base.kind == "relative"):
            raise AdapterError(
                "the base by itself predicts no metres; name an adapter for each "
                f"picture: {', '.join(self.names)}"
            )
        with self.adapters.select(names):
            yield

    def forward(self, image: Tensor) -> Tensor:
        """Depth (B, 1, h, w) of normalised images (B, 3, h, w), within `select`.

        Metres; of an adapter with a canonical camera those of that camera
        (`focal_factors` makes true ones of them).
        """
        depth: Tensor = self.network(image)
        if not self.network.saturates:
            return depth
        return depth * self.ranges(depth)

    def ranges(self, like: Tensor) -> Tensor:
        """Metres (B or 1, 1, 1, 1) up to which each selected adapter predicts."""
        return _column([spec.max_depth or 1.0 for spec in self._specs()], like)

    def canonical_focals_px(self) -> list[float | None]:
        """Of each selected adapter; None of those for any camera."""
        return [camera_of(spec) for spec in self._specs()]

    def focal_factors(self, focal_px: Tensor) -> Tensor:
        """What makes true metres (B, 1, 1, 1) of the selected adapters' (`camera`).

        Args:
            focal_px: (B,) of the network's input; it counts where an adapter has a
                canonical camera.
        """
        canonical = self.canonical_focals_px()
        wanted = torch.tensor([f or 1.0 for f in canonical], device=focal_px.device)
        any_camera = torch.tensor(
            [f is None for f in canonical], device=focal_px.device
        )
        factors = torch.where(any_camera, 1.0, focal_px / wanted)
        return factors[:, None, None, None]

    def _specs(self) -> list[OutputSpec]:
        base = self.network.spec if self.base is None else self.base
        found = []
        for origin in self.adapters.origins():
            record = origin.record if isinstance(origin, DepthAdapter) else None
            found.append(base if record is None else record.network)
        return found


def unit_network(record: DepthRecord) -> Network:
    """The base of a record, without adapter, in the range of 1 m.

    Raises:
        CheckpointError: If its base is not the one that there is now.
    """
    return replace(record, network=unit_spec(record)).load_base()


def unit_spec(record: DepthRecord) -> OutputSpec:
    """What a record's network is in the range of 1 m.

    Its output times a range is to the bit what a network of that range predicts.
    """
    spec: Any = record.network
    unit: OutputSpec = replace(spec, max_depth=1.0)
    return unit


def _shared(spec: OutputSpec) -> dict[str, Any]:
    assert is_dataclass(spec)
    assert not isinstance(spec, type)
    return {k: v for k, v in asdict(spec).items() if k not in OF_EACH}


def _said(spec: dict[str, Any]) -> str:
    return ",".join(str(value) for value in spec.values())


def _column(numbers: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(numbers, dtype=like.dtype, device=like.device)[
        :, None, None, None
    ]
