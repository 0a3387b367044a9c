"""What a Depth Anything network is: its sizes, versions and kinds."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from datamodules.errors import UserError

Size = Literal["tiny", "mini", "S", "B", "L", "G"]
Version = Literal["v1", "v2", "v3"]
Kind = Literal["relative", "metric"]
Unit = Literal["metres", "disparity", "depth"]
"""What a network's numbers are: metres along the optical axis, affine disparity (larger
is nearer), or depth up to its scale (larger is farther)."""
DESCRIBED = "SIZE,VERSION,KIND[,MAX_DEPTH], such as S,v2,metric,20"


class NetworkError(UserError):
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
    """Blocks whose output feeds the head, counted from 0, but in v1."""
    pretrain_px: int = 518
    """Side of the square image that the position embedding was learned on."""
    swiglu: bool = False

    def taps(self, version: Version) -> tuple[int, ...]:
        """The tapped blocks."""
        if DESIGNS[version].taps_last:
            return tuple(range(self.depth - 4, self.depth))
        return self.v2_taps


PRESETS: dict[Size, Preset] = {
    # Ours, for the demo and the tests: about 1.6 million parameters.
    "tiny": Preset(128, 6, 4, 32, (24, 48, 96, 96), (1, 2, 4, 5), pretrain_px=196),
    # Ours, for photographs where nothing can be downloaded: 4.5 million.
    "mini": Preset(192, 8, 3, 48, (48, 96, 128, 128), (1, 3, 5, 7), pretrain_px=196),
    "S": Preset(384, 12, 6, 64, (48, 96, 192, 384), (2, 5, 8, 11)),
    "B": Preset(768, 12, 12, 128, (96, 192, 384, 768), (2, 5, 8, 11)),
    "L": Preset(1024, 24, 16, 256, (256, 512, 1024, 1024), (4, 11, 17, 23)),
    "G": Preset(1536, 40, 24, 384, (1536,) * 4, (9, 19, 29, 39), swiglu=True),
}


@dataclass(frozen=True)
class Design:
    """In what the versions differ, beside the weights."""

    sizes: tuple[Size, ...] = get_args(Size)
    """There is no other."""
    taps_last: bool = False
    """Whether the head reads the last four blocks, not a preset's own."""
    last_eps: float = 1e-6
    """Of the normalisation after the tapped blocks."""
    spare: bool = True
    """Whether the files hold parameters that depth estimation does not read."""
    exponential: bool = False
    """exp of the logit, metric or not, in place of sigmoid and ReLU."""
    sky: bool = False
    """Whether a second branch of the head finds the sky."""
    image_size: str | None = None
    """Of its own predictions, in the words of `datamodules.sizes`."""


DESIGNS: dict[Version, Design] = {
    "v1": Design(taps_last=True),
    "v2": Design(),
    # The monocular networks of Depth Anything 3, `model/dpt.py` and
    # `configs/da3{mono,metric}-large.yaml`; the any-view ones are built otherwise.
    "v3": Design(
        sizes=("tiny", "L"),
        last_eps=1e-5,
        spare=False,
        exponential=True,
        sky=True,
        image_size="max504",
    ),
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
    """`metric`: metres. `relative`: affine disparity, or in v3 depth up to a scale."""
    max_depth: float | None = None
    """Metres at which a metric network's output saturates, in v3 those that its labels
    reached; None for a relative one."""
    canonical_focal_px: float | None = None
    """Of the one camera that metres are predicted for (`models.camera`); None for a
    network that takes no account of cameras."""

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
        if self.size not in self.design.sizes:
            raise NetworkError(
                f"Depth Anything {self.version} has no monocular network of size "
                f"{self.size}; use one of {', '.join(self.design.sizes)}"
            )
        check_output(self.kind, self.max_depth)
        check_camera(self.kind, self.canonical_focal_px)

    @property
    def preset(self) -> Preset:
        return PRESETS[self.size]

    @property
    def design(self) -> Design:
        return DESIGNS[self.version]

    @classmethod
    def parse(cls, text: str) -> "NetworkSpec":
        """What a command line says (`DESCRIBED`).

        Raises:
            NetworkError: If it is not that.
        """
        parts = text.split(",")
        allowed = (get_args(Size), get_args(Version), get_args(Kind))
        fits = len(parts) in (3, 4) and all(
            part in choices for part, choices in zip(parts, allowed, strict=False)
        )
        try:
            max_depth = float(parts[3]) if len(parts) == 4 else None
        except ValueError:
            fits = False
        if not fits:
            raise NetworkError(f"--network {text!r} is not {DESCRIBED}")
        size, version, kind = parts[:3]
        return cls(size, version, kind, max_depth)  # type: ignore[arg-type]


def check_output(kind: Kind, max_depth: float | None) -> None:
    """Refuse a kind of output and a max_depth (metres) that do not go together.

    Raises:
        NetworkError: Saying which of the two to change.
    """
    if kind == "relative" and max_depth is not None:
        raise NetworkError(
            f"a relative network's output has no unit, so max_depth {max_depth} means "
            "nothing; leave it out or use kind 'metric'"
        )
    usable = max_depth is not None and math.isfinite(max_depth) and max_depth > 0
    if kind == "metric" and not usable:
        raise NetworkError(
            f"a metric network needs max_depth in metres, above 0, not {max_depth}; "
            "Depth Anything V2 was released with 20 (indoor, Hypersim) and 80 "
            "(outdoor, VKITTI)"
        )


def check_camera(kind: Kind, canonical_focal_px: float | None) -> None:
    """Refuse a canonical focal length (pixels) that is none, or means nothing.

    Raises:
        NetworkError: Saying what to change.
    """
    if canonical_focal_px is None:
        return
    if kind != "metric":
        raise NetworkError(
            f"a relative network's output has no unit, so canonical_focal_px "
            f"{canonical_focal_px:g} means nothing; leave it out or use kind 'metric'"
        )
    if not 0 < canonical_focal_px < math.inf:
        raise NetworkError(
            f"canonical_focal_px {canonical_focal_px:g} must be above 0 pixels"
        )
