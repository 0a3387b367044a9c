"""A DINOv2 encoder, adapted, under a new DPT head."""

from models.adapters import AdapterConfig
from models.camera import CameraMode, canonical_focal
from models.networks import DepthNetwork, NetworkSpec
from models.networks.presets import Size
from models.new_head import NewHeadModule
from models.optimisation import Optimisation


class DINOv2Module(NewHeadModule):
    """DINOv2 with a DPT head that is trained from scratch.

    Args:
        size: tiny, mini, S, B, L or G.
        weights: Encoder weights: a path, a Hub id, or dinov2-small, -base, -large;
            null starts at random.
        adapter: Method and options; by default it changes the encoder's linears and
            leaves the head to be trained in full. Null trains the whole network.
        max_depth: Metres at which the output saturates. Linked to data.max_depth.
        image_size: Network input (rows, cols). Linked to data.image_size.
        start_depth: Metres that every pixel starts at; null takes a quarter of
            max_depth.
        camera: `any` takes no account of cameras, which is right for one camera;
            `canonical` learns from several: it needs every frame's focal length.
        canonical_focal_px: With `canonical`, that of the camera that the network
            predicts for, in pixels of its input; null takes 300. Best the shortest of
            all cameras, since shorter ones reach less far than max_depth.
        optimisation: Rates, schedule and loss.
        gradient_checkpointing: Compute the encoder's blocks again in backward instead
            of keeping them: less memory, more time, the same gradients to the bit.
    """

    def __init__(
        self,
        max_depth: float,
        image_size: tuple[int, int],
        size: Size = "S",
        weights: str | None = "dinov2-small",
        adapter: AdapterConfig | None = None,
        start_depth: float | None = None,
        camera: CameraMode = "any",
        canonical_focal_px: float | None = None,
        optimisation: Optimisation = Optimisation(),  # noqa: B008 - frozen
        gradient_checkpointing: bool = False,
    ) -> None:
        focal_px = canonical_focal(camera, canonical_focal_px)
        network = DepthNetwork(NetworkSpec(size, "v2", "metric", max_depth, focal_px))
        super().__init__(
            network,
            weights,
            max_depth,
            image_size,
            adapter,
            start_depth,
            optimisation,
            gradient_checkpointing=gradient_checkpointing,
        )
