"""An encoder in one file that is not DINOv2: patches of 16 px, its own colours."""

from dataclasses import dataclass

from torch import Tensor, nn

from models.adapters import AdapterConfig, adapt
from models.artefacts.base import Base
from models.artefacts.depth_record import DepthRecord
from models.depth_module import DepthModule
from models.networks.depth_network import DPTNetwork
from models.networks.presets import Kind, check_output
from models.optimisation import Optimisation


class ToyEncoder(nn.Module):
    patch_px = 16
    image_mean = (0.5, 0.5, 0.5)
    image_std = (0.5, 0.5, 0.5)
    adapter_targets = (r"^blocks\.\d$",)
    never_trained = (r"^unread$",)

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.patches = nn.Conv2d(3, embed_dim, self.patch_px, self.patch_px)
        self.blocks = nn.ModuleList(nn.Linear(embed_dim, embed_dim) for _ in range(4))
        self.unread = nn.Parameter(nn.init.zeros_(self.patches.bias.clone()))

    def taps(self, image: Tensor, blocks: tuple[int, ...]) -> list[Tensor]:
        tokens, found = self.patches(image).flatten(2).mT, []
        for number, block in enumerate(self.blocks):
            tokens = tokens + block(tokens).tanh()
            if number in blocks:
                found.append(tokens)
        return found


@dataclass(frozen=True)
class ToySpec:
    max_depth: float | None = 10.0
    kind: Kind = "metric"
    embed_dim: int = 24

    def __post_init__(self) -> None:
        check_output(self.kind, self.max_depth)


class ToyNetwork(DPTNetwork):
    spec_type = ToySpec
    licence = "mit"

    def __init__(self, spec: ToySpec) -> None:
        encoder = ToyEncoder(spec.embed_dim)
        super().__init__(spec, encoder, (0, 1, 2, 3), 8, (8, 8, 8, 8))


class ToyModule(DepthModule):
    def __init__(
        self,
        max_depth: float,
        image_size: tuple[int, int],
        weights: str | None = None,
        adapter: AdapterConfig | None = None,
        optimisation: Optimisation = Optimisation(),  # noqa: B008 - frozen
    ) -> None:
        network, base = ToyNetwork(ToySpec(max_depth)), Base(weights)
        base.fill(network)
        record = DepthRecord(
            network=network.spec,
            family=ToyNetwork,
            image_size=image_size,
            base=base,
            base_sha256=base.fingerprint(network),
            adapter=adapter,
        )
        if adapter is not None:
            adapt(network, adapter)
        super().__init__(network, record, optimisation)
