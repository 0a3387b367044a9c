"""What an encoder and a network say about themselves.

Training, data, files and command lines ask here and know no network by heart, so that
another encoder or network is one file. Names are those of a state dict; patterns are
regular expressions, searched in such names.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, Protocol

from torch import Tensor, nn

from models.networks.presets import Kind, NetworkError, Unit

Part = Literal["encoder", "head"]


class OutputSpec(Protocol):
    """What every network's own specification, a frozen dataclass, has at least."""

    @property
    def kind(self) -> Kind:
        """`metric`: metres. `relative`: no unit."""

    @property
    def max_depth(self) -> float | None:
        """Metres that a metric network's labels reached, or at which it saturates."""


class Encoder(Protocol):
    """A module that turns images into patch tokens."""

    patch_px: int
    """Side of a patch; an image's sides are multiples of it."""
    image_mean: tuple[float, float, float]
    """Subtracted from RGB in 0..1."""
    image_std: tuple[float, float, float]
    embed_dim: int
    """Numbers per token."""
    adapter_targets: tuple[str, ...]
    """Layers that an adapter changes: patterns that begin with `^`, of names below."""
    never_trained: tuple[str, ...]
    """Parameters that are never read, or that training leaves alone, likewise."""

    def taps(self, image: Tensor, blocks: tuple[int, ...]) -> list[Tensor]:
        """Patch tokens (B, N, D), row by row, after each of the blocks, normalised.

        Args:
            image: (B, 3, H, W) in whole patches.
            blocks: Numbers of blocks, from 0.
        """


class DepthPredictor(nn.Module):
    """Images in, depth out: all that predicting needs."""

    spec: OutputSpec
    patch_px: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    image_size: tuple[int, int] | int | str | None = None
    """That it is made for, as in `datamodules.sizes`; None where nothing tells."""

    @property
    def unit(self) -> Unit:
        """What its numbers are."""
        return "metres" if self.spec.kind == "metric" else "disparity"

    @property
    def canonical_focal_px(self) -> float | None:
        """Of the one camera that metres are predicted for; None for any camera."""
        return camera_of(self.spec)


class Network(DepthPredictor, ABC):
    """A network that can be adapted, trained, saved and handed on."""

    spec_type: ClassVar[type]
    """The class of `spec`; `type(network)(spec)` makes a random network of it."""
    adapter_targets: tuple[str, ...]
    """Layers that an adapter changes unless it names its own."""
    fully_trained: tuple[str, ...]
    """Layers trained in full beside the adapter."""
    never_trained: tuple[str, ...]
    """Parameters that never get a gradient: `forward` does not read them, or training
    is to leave them as they are."""
    encoder_name: ClassVar[str]
    """Name of the submodule that published encoder weights are for."""
    saturates: bool = True
    """Whether a metric network's output ends at `max_depth`."""
    licence: ClassVar[str | None] = None
    """Of the published weights, where all of them have the same."""

    @property
    def encoder(self) -> nn.Module:
        return self.get_submodule(self.encoder_name)

    def part_of(self, name: str) -> Part:
        """Which part a parameter belongs to; the parts have their own rates."""
        return "encoder" if name.startswith(f"{self.encoder_name}.") else "head"

    def pooled(self, image: Tensor) -> Tensor:
        """What the encoder makes of each image as a whole: (B, features).

        Means of the patch tokens of the upper and of the lower half: that there is sky
        above and road below is lost in a mean over all.

        Args:
            image: (B, 3, H, W), normalised, H and W in whole patches.

        Raises:
            NetworkError: If the network does not say.
        """
        raise NetworkError(
            f"{type(self).__name__} has no `pooled`, which a router chooses by: leave "
            "the router out, or give it one"
        )

    def checkpoint_gradients(self) -> None:
        """Compute the encoder's blocks again in backward instead of keeping them.

        Gradients are the same to the bit, at the price of another forward through the
        encoder.

        Raises:
            NetworkError: If the encoder cannot.
        """
        switch = getattr(self.encoder, "set_grad_checkpointing", None)
        if switch is None:
            raise NetworkError(
                f"{type(self.encoder).__name__} has no set_grad_checkpointing: leave "
                "model.gradient_checkpointing at false, or give it one"
            )
        switch(True)

    def from_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of the tensors in a file of encoder weights those that are the encoder's."""
        return dict(state)

    @abstractmethod
    def new_beside(self, base: Literal["network", "encoder"]) -> tuple[str, ...]:
        """Prefixes of what may be new where training begins from base weights.

        Args:
            base: Whether those were of the whole network or of its encoder.
        """

    @abstractmethod
    def start_at_depth(self, depth: float) -> None:
        """Begin the output anew, so that every pixel is near `depth` metres."""


def camera_of(spec: OutputSpec) -> float | None:
    """A network's canonical focal length in pixels; None for any camera.

    A specification without such an entry is of a network for any.
    """
    focal_px: float | None = getattr(spec, "canonical_focal_px", None)
    return focal_px


def below(module: str, patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Patterns that begin with `^`, for the same names below a module of this name."""
    return tuple(rf"^{module}\." + pattern.removeprefix("^") for pattern in patterns)
