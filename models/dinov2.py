"""A DINOv2 encoder, adapted, under a new DPT head."""

from models.adapters import AdapterConfig
from models.networks import DepthNetwork, NetworkSpec
from models.networks.presets import Size
from models.new_head import NewHeadModule
from models.optimisation import Optimisation


class DINOv2Module(NewHeadModule):
    """DINOv2 with a DPT head that is trained from scratch.

    Args:
        size: tiny, S, B, L or G.
        weights: Encoder weights: a path, a Hub id, or dinov2-small, -base, -large;
            null starts at random.
        adapter: Method and options; by default it changes the encoder's linears and
            leaves the head to be trained in full. Null trains the whole network.
        max_depth: Metres at which the output saturates. Linked to data.max_depth.
        image_size: Network input (rows, cols). Linked to data.image_size.
        start_depth: Metres that every pixel starts at; null takes a quarter of
            max_depth.
        optimisation: Rates, schedule and loss.
    """

    def __init__(
        self,
        max_depth: float,
        image_size: tuple[int, int],
        size: Size = "S",
        weights: str | None = "dinov2-small",
        adapter: AdapterConfig | None = None,
        start_depth: float | None = None,
        optimisation: Optimisation = Optimisation(),  # noqa: B008 - frozen
    ) -> None:
        network = DepthNetwork(NetworkSpec(size, "v2", "metric", max_depth))
        super().__init__(
            network, weights, max_depth, image_size, adapter, start_depth, optimisation
        )
