"""What a Depth Anything network is: its sizes, versions and kinds."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

Size = Literal["tiny", "S", "B", "L", "G"]
Version = Literal["v1", "v2"]
Kind = Literal["relative", "metric"]


class NetworkError(Exception):
    """A network that cannot be built or loaded as asked; the message says why."""


@dataclass(frozen=True)
class Preset:
    """The dimensions of one size (Depth Anything V2, `dpt.py: model_configs`)."""

    embed_dim: int
    depth: int
    num_heads: int
    features: int
    out_channels: tuple[int, int, int, int]
    v2_taps: tuple[int, int, int, int]
    """Blocks whose output feeds the head, counted from 0; v1 taps the last four."""
    pretrain_px: int = 518
    """Side of the square image that the position embedding was learned on."""
    swiglu: bool = False

    def taps(self, version: Version) -> tuple[int, ...]:
        """The tapped blocks, the only thing in which v1 and v2 differ."""
        if version == "v1":
            return tuple(range(self.depth - 4, self.depth))
        return self.v2_taps


PRESETS: dict[Size, Preset] = {
    # Ours, for the demo and the tests: about 1.6 million parameters.
    "tiny": Preset(128, 6, 4, 32, (24, 48, 96, 96), (1, 2, 4, 5), pretrain_px=196),
    "S": Preset(384, 12, 6, 64, (48, 96, 192, 384), (2, 5, 8, 11)),
    "B": Preset(768, 12, 12, 128, (96, 192, 384, 768), (2, 5, 8, 11)),
    "L": Preset(1024, 24, 16, 256, (256, 512, 1024, 1024), (4, 11, 17, 23)),
    "G": Preset(1536, 40, 24, 384, (1536,) * 4, (9, 19, 29, 39), swiglu=True),
}


@dataclass(frozen=True)
class NetworkSpec:
    """Everything that a file of official weights does not say about itself.

    v1 and v2, relative and metric files have the same keys and shapes, so a wrong
    pairing loads without complaint and predicts nonsense: this record travels with
    every artefact of ours instead.
    """

    size: Size = "S"
    version: Version = "v2"
    kind: Kind = "metric"
    """`metric`: sigmoid x max_depth, metres. `relative`: ReLU, affine disparity."""
    max_depth: float | None = None
    """Metres at which a metric network's output saturates; None for a relative one."""

    def __post_init__(self) -> None:
        for name, given, allowed in (
            ("size", self.size, get_args(Size)),
            ("version", self.version, get_args(Version)),
            ("kind", self.kind, get_args(Kind)),
        ):
            if given not in allowed:
                raise NetworkError(
                    f"{name} {given!r} is not known; use one of {', '.join(allowed)}"
                )
        if self.kind == "relative" and self.max_depth is not None:
            raise NetworkError(
                f"a relative network predicts disparity without a unit, so max_depth "
                f"{self.max_depth} means nothing; leave it out or use kind 'metric'"
            )
        if self.kind == "metric" and not (
            self.max_depth is not None
            and math.isfinite(self.max_depth)
            and self.max_depth > 0
        ):
            raise NetworkError(
                f"a metric network needs max_depth in metres, above 0, not "
                f"{self.max_depth}; Depth Anything V2 was released with 20 "
                "(indoor, Hypersim) and 80 (outdoor, VKITTI)"
            )

    @property
    def preset(self) -> Preset:
        return PRESETS[self.size]
