"""What predicts: one network, or a bank; and what of it counts for a picture."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from app.prediction.options import Prediction
from app.prediction.running import Runner
from datamodules.batch import ImageInput
from datamodules.errors import DataError
from datamodules.files.pictures import Picture
from datamodules.sizes import InputSize, Shrink
from models.artefacts.depth_record import DepthRecord
from models.artefacts.engines import with_engine
from models.artefacts.form import Opened
from models.artefacts.programs import OnnxNetwork
from models.networks.interface import DepthPredictor, OutputSpec, camera_of
from models.networks.presets import Kind, Unit


@dataclass(frozen=True)
class Given:
    """What counts for one picture."""

    wanted: InputSize
    """The network's input."""
    shrink: Shrink
    """How a larger picture is brought to it."""
    max_depth: float | None
    """Metres at which the output saturates."""
    canonical_px: float | None = None
    """Focal length of the camera that metres are predicted for."""
    focals_px: tuple[float, float] | None = None
    """Shortest and longest focal length in training."""
    adapter: str | None = None
    """Of a bank; None for the base, and for any other network."""
    confidence: float | None = None
    """Of a router that chose it."""

    @classmethod
    def of(
        cls,
        spec: OutputSpec,
        size: InputSize | None,
        shrink: Shrink,
        record: DepthRecord | None,
        patch_px: int,
        prediction: Prediction,
        adapter: str | None = None,
        confidence: float | None = None,
    ) -> "Given":
        """What is asked for, and where nothing is, what the network is for.

        Args:
            spec: Of the network, or of its adapter.
            size: That it is made for; None where nothing tells.
            shrink: Likewise.
            record: Of its training; None for weights of others.
            patch_px: Of the network.
            prediction: What was asked for.
            adapter: As above, like the next.
            confidence: Likewise.
        """
        return cls(
            prediction.input_size(size, patch_px),
            prediction.shrink or shrink,
            spec.max_depth,
            camera_of(spec),
            None if record is None else record.focals_px,
            adapter,
            confidence,
        )

    @property
    def reach(self) -> float:
        """Metres beyond which nothing was learned."""
        return math.inf if self.max_depth is None else self.max_depth


class Model(ABC):
    """A network, or a bank, that is to predict pictures."""

    source: str
    """What the user called it."""
    kind: Kind
    unit: Unit
    max_depth: float
    """Metres at the far end of whatever it may predict; 1 without a unit."""
    patch_px: int
    image_input: ImageInput

    @abstractmethod
    def about(self, prediction: Prediction) -> dict[str, object]:
        """What of it the files of predictions depend on, for their header."""

    def check(self, pictures: Sequence[Picture]) -> None:
        """Refuse pictures that it is not told enough of, before anything is written.

        Raises:
            DataError: Naming them.
        """
        return

    @abstractmethod
    def given(
        self, pictures: Sequence[Picture], prediction: Prediction, runner: Runner
    ) -> list[Given]:
        """What counts for each picture."""

    @abstractmethod
    def ready(self) -> DepthPredictor:
        """The network that predicts; nothing else may be asked afterwards."""

    def chosen(self, adapters: Sequence[str | None]) -> AbstractContextManager[None]:
        """Within the block it predicts a batch with these adapters."""
        return nullcontext()


class OneNetwork(Model):
    """A network of any form, the same for every picture."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        spec = opened.network.spec
        self.source, self.kind = opened.source, spec.kind
        self.unit = opened.network.unit
        self.max_depth = spec.max_depth or 1.0
        self.patch_px = opened.network.patch_px
        self.image_input = opened.image_input
        network = opened.network
        self.engine = network.runner if isinstance(network, OnnxNetwork) else "torch"

    def about(self, prediction: Prediction) -> dict[str, object]:
        spec = self.opened.network.spec
        given = self._given(prediction)
        return {
            "model": self.source,
            "sha256": self.opened.fingerprint,
            "kind": spec.kind,
            "unit": self.unit,
            "max_depth": spec.max_depth,
            "canonical_focal_px": given.canonical_px,
            "input_size": listed(given.wanted),
            "image_shrink": given.shrink,
            "engine": self.engine,
        }

    def given(
        self, pictures: Sequence[Picture], prediction: Prediction, runner: Runner
    ) -> list[Given]:
        return [self._given(prediction)] * len(pictures)

    def ready(self) -> DepthPredictor:
        return self.opened.merged()

    def _given(self, prediction: Prediction) -> Given:
        opened, shrink = self.opened, self.image_input.shrink
        spec, size = opened.network.spec, opened.image_size
        return Given.of(spec, size, shrink, opened.record, self.patch_px, prediction)


def computed(opened: Opened, prediction: Prediction) -> Opened:
    """The network by the engine that was asked for.

    Raises:
        ExportError: If that cannot compute it.
    """
    if prediction.engine is None:
        return opened
    size = prediction.input_size(opened.image_size, opened.network.patch_px)
    return with_engine(opened, prediction.engine, size, print)


def no_engine(prediction: Prediction) -> None:
    """Refuse an engine where there are several adapters.

    Raises:
        DataError: Saying what to do.
    """
    if prediction.engine not in (None, "torch"):
        raise DataError(
            f"--engine {prediction.engine} computes one network, its adapter folded "
            "in; with several adapters leave it out, or give one of them as --model"
        )


def listed(size: InputSize) -> object:
    """A size as JSON has it."""
    return list(size) if isinstance(size, tuple) else size
