"""An encoder that knows no depth, adapted, under a new head."""

from models.adapters import AdapterConfig, adapt
from models.artefacts.base import Base
from models.artefacts.depth_record import DepthRecord
from models.depth_module import DepthModule
from models.networks.interface import Network
from models.optimisation import Optimisation


class NewHeadModule(DepthModule):
    """An encoder whose head is trained from scratch.

    Args:
        network: At random.
        weights: Of the encoder: a path, a Hub id or a known name; None stays at random.
        max_depth: Metres at which the output saturates.
        image_size: Network input (rows, cols).
        adapter: Method and options; by default it changes the layers of the encoder's
            blocks and leaves the head to be trained in full. None trains everything.
        start_depth: Metres that every pixel starts at; None is a quarter of max_depth.
        optimisation: Rates, schedule and loss.
        gradient_checkpointing: Compute the encoder's blocks again in backward.
    """

    def __init__(
        self,
        network: Network,
        weights: str | None,
        max_depth: float,
        image_size: tuple[int, int],
        adapter: AdapterConfig | None,
        start_depth: float | None,
        optimisation: Optimisation,
        *,
        gradient_checkpointing: bool,
    ) -> None:
        base = Base.found(weights, part="encoder")
        base.fill(network)
        if adapter is not None:
            blocks = rf"^{network.encoder_name}.blocks.".replace(".", r"\.")
            adapter = adapter.with_defaults(
                targets=(blocks,), train_fully=(r"^depth_head$",)
            )
        record = DepthRecord(
            network=network.spec,
            family=type(network),
            image_size=image_size,
            base=base,
            base_sha256=base.fingerprint(network),
            adapter=adapter,
        )
        network.start_at_depth(max_depth / 4 if start_depth is None else start_depth)
        if adapter is not None:
            adapt(network, adapter)
        if gradient_checkpointing:
            network.checkpoint_gradients()
        super().__init__(network, record, optimisation)
