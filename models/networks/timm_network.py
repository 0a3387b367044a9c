"""Encoders of timm under a new DPT head."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from models.networks.depth_network import DPTNetwork
from models.networks.presets import (
    PRESETS,
    Design,
    Kind,
    Preset,
    check_camera,
    check_output,
)
from models.networks.timm_encoder import TimmEncoder, quarters


@dataclass(frozen=True)
class TimmSpec:
    """A transformer of timm, and how far its new head sees."""

    model: str
    """As timm calls it."""
    max_depth: float
    """Metres at which the output saturates."""
    embed_dim: int | None = None
    """In place of the model's own, for a smaller one that begins at random."""
    depth: int | None = None
    num_heads: int | None = None
    canonical_focal_px: float | None = None
    """Of the one camera that metres are predicted for; None for any camera."""

    def __post_init__(self) -> None:
        check_output(self.kind, self.max_depth)
        check_camera(self.kind, self.canonical_focal_px)

    @property
    def kind(self) -> Kind:
        return "metric"


class TimmNetwork(DPTNetwork):
    """A transformer of timm under the DPT head that its width asks for."""

    spec_type = TimmSpec
    spec: TimmSpec
    encoder_name = "pretrained.model"

    def __init__(self, spec: TimmSpec) -> None:
        encoder = TimmEncoder(spec.model, spec.embed_dim, spec.depth, spec.num_heads)
        preset = head_for(encoder.embed_dim)
        super().__init__(
            spec,
            encoder,
            quarters(encoder.depth),
            preset.features,
            preset.out_channels,
            Design(spare=False),
        )

    def from_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        encoder = self.pretrained
        assert isinstance(encoder, TimmEncoder)
        return encoder.from_published(state)


class DINOv3Network(TimmNetwork):
    """DINOv3, whose licence goes with everything that is made from it."""

    licence = "dinov3-license"


def head_for(embed_dim: int) -> Preset:
    """Depth Anything's size whose head is for tokens of about this width."""
    # `mini` came later: narrow encoders keep the head that they were trained with.
    others = (preset for size, preset in PRESETS.items() if size != "mini")
    sizes = sorted(others, key=lambda preset: preset.embed_dim)
    wide = (preset for preset in sizes if preset.embed_dim >= embed_dim)
    return next(wide, sizes[-1])
