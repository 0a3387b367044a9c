"""A network that was opened, and what is known of it."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from datamodules.batch import ImageInput
from datamodules.sizes import InputSize, Shrink, fixed
from models.adapters import merge
from models.adapters.opened import fingerprint
from models.artefacts import FORMS
from models.artefacts.depth_facts import Origin
from models.errors import ExportError
from models.networks.interface import DepthPredictor, Network

if TYPE_CHECKING:
    from models.artefacts.depth_record import DepthRecord
    from models.artefacts.record import Record

LOST = 0.01
"""Part of an increment that folding in may round away without a word."""

Reopened = Callable[[Any], Any]
"""What was written, loaded again: of depth, images (B, 3, H, W) to (B, 1, H, W)."""


class OpenedModel(ABC):
    """A network of any task."""

    network: nn.Module
    """Its adapters in place, or none."""
    record: "Record[Any] | None"
    """Of a network that was trained here; None for weights of others."""
    source: str
    """What the user called it."""
    forms: ClassVar[Mapping[str, str]] = FORMS
    """Those that it can be handed on in, the usual one first."""

    @property
    def about(self) -> "Record[Any] | Origin":
        """What is known of where it is from.

        Raises:
            ExportError: If nothing is.
        """
        if self.record is None:
            raise ExportError(
                f"{self.source} does not say what it is from, so that no card can be "
                "written; push the checkpoint or adapter that it was exported from"
            )
        return self.record

    @property
    @abstractmethod
    def adapted(self) -> nn.Module:
        """The network, where it can be trained and handed on.

        Raises:
            ExportError: If it can only predict.
        """

    @abstractmethod
    def export_size(
        self, choose: Callable[[InputSize | None, int], InputSize]
    ) -> InputSize:
        """The pictures that an export is for, from what the user asks.

        Args:
            choose: Takes the model's own size and the side of its patches.
        """

    @abstractmethod
    def for_pictures(self) -> "Opened":
        """Itself, if it predicts pictures.

        Raises:
            ExportError: If it does not.
        """

    @abstractmethod
    def probes(self, size: InputSize) -> list[Any]:
        """Inputs to compare on, the same at every call."""

    def difference(self, reopened: Reopened, probe: Any) -> float | None:
        """How much what was written of it differs on a probe, by a measure of its own.

        None leaves it to `form.difference`.
        """
        return None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all its weights: equal for equal predictions."""
        return fingerprint(self.network)

    def merged(self) -> nn.Module:
        """The network with its adapters folded in, in place, ready to predict.

        Warns where the weights' format rounds much of an increment away.
        """
        if (lost := merge(self.network).rounding) > LOST:
            warnings.warn(
                f"folding in rounds {lost:.0%} of a layer's increment away, since the "
                "base's weights have few bits; --export-format adapter or peft keeps "
                "all of it",
                stacklevel=2,
            )
        return self.network.eval()

    def notes(self) -> dict[str, object]:
        """What a merged export should say of how it is used and where it comes from."""
        content = {} if self.record is None else self.record.to_dict()
        wanted = ("base", "adapter", "scores", "focals_px")
        return {key: content[key] for key in wanted if key in content}


@dataclass(frozen=True)
class Opened(OpenedModel):
    """A depth network."""

    network: DepthPredictor
    """Its adapters in place, or none."""
    record: "DepthRecord | None"
    """Of a network that was trained here; None for weights of others."""
    image_size: InputSize | None
    """That it was trained at, (rows, cols), or is used at; None where nothing tells."""
    source: str
    """What the user called it."""
    image_shrink: Shrink = "area"
    """How larger pictures are brought to its input, where no record says it."""
    said: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """What its file says of where it is from, where no record does."""

    @property
    def about(self) -> "DepthRecord | Origin":
        if self.record is not None:
            return self.record
        network = self.network
        return Origin(network.spec, type(network), self.source, self.said)

    @property
    def image_input(self) -> ImageInput:
        """What the network reads."""
        record = self.record
        shrink = self.image_shrink if record is None else record.image_shrink
        return ImageInput.of(self.network, shrink)

    @property
    def adapted(self) -> Network:
        if not isinstance(self.network, Network):
            raise ExportError(
                f"{self.source} is an ONNX program, which can only predict; give the "
                "checkpoint or folder that it was exported from"
            )
        return self.network

    def export_size(
        self, choose: Callable[[InputSize | None, int], InputSize]
    ) -> InputSize:
        return choose(self.image_size, self.network.patch_px)

    def for_pictures(self) -> Self:
        return self

    def probes(self, size: InputSize) -> list[Tensor]:
        patch_px = self.network.patch_px
        small = (5 * patch_px, 7 * patch_px)
        return [smooth(1, fixed(size, patch_px)), smooth(3, small)]

    def merged(self) -> DepthPredictor:
        super().merged()
        return self.network

    def notes(self) -> dict[str, object]:
        kept = {key: value for key, value in self.said.items() if key != "licence"}
        # A name that is known today may not be where the export is read.
        licence = self.about.licence()
        told = {} if licence is None else {"base_licence": licence}
        shrink = self.image_input.shrink
        return {"image_shrink": shrink, **kept, **super().notes(), **told}


def smooth(batch: int, size: tuple[int, int]) -> Tensor:
    """Images (batch, 3, rows, cols) without hard edges, the same at every call."""
    generator = torch.Generator().manual_seed(batch)
    coarse = torch.randn(batch, 3, 6, 8, generator=generator)
    return torch.nn.functional.interpolate(coarse, size, mode="bicubic")
