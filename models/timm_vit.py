"""Any plain vision transformer of timm, adapted, under a new DPT head."""

from models.adapters import AdapterConfig
from models.artefacts.published.sources import timm_repository
from models.camera import CameraMode, canonical_focal
from models.networks.timm_network import TimmNetwork, TimmSpec
from models.new_head import NewHeadModule
from models.optimisation import Optimisation


class TimmModule(NewHeadModule):
    """A vision transformer of timm with a DPT head that is trained from scratch.

    Its patches and its colours' normalisation are the data's: data.image_size is in
    multiples of its patch.

    Args:
        model: As timm calls it, with or without a tag, such as
            vit_base_patch16_siglip_224.webli, eva02_base_patch14_224.mim_in22k,
            vit_pe_core_base_patch16_224.fb or deit3_base_patch16_224.fb_in22k_ft_in1k.
            Its maps must have one size: pyramids (ConvNeXt, Swin, ResNet) are refused.
        weights: Encoder weights: timm, for those that timm publishes under this name;
            a path, or a Hub id; null starts at random.
        embed_dim: In place of the model's own, for a smaller one that starts at random.
        depth: Number of blocks, likewise.
        num_heads: Heads of attention, likewise.
        adapter: Method and options; by default it changes the encoder's linears and
            leaves the head to be trained in full. Null trains the whole network.
        max_depth: Metres at which the output saturates. Linked to data.max_depth.
        image_size: Network input (rows, cols). Linked to data.image_size.
        start_depth: Metres that every pixel starts at; null takes a quarter of
            max_depth.
        camera: `any` takes no account of cameras, which is right for one camera;
            `canonical` learns from several: it needs every frame's focal length.
        canonical_focal_px: With `canonical`, that of the camera that the network
            predicts for, in pixels of its input; null takes 300.
        optimisation: Rates, schedule and loss.
        gradient_checkpointing: Compute the encoder's blocks again in backward instead
            of keeping them: less memory, more time, the same gradients to the bit.
    """

    def __init__(
        self,
        max_depth: float,
        image_size: tuple[int, int],
        model: str,
        weights: str | None = "timm",
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        adapter: AdapterConfig | None = None,
        start_depth: float | None = None,
        camera: CameraMode = "any",
        canonical_focal_px: float | None = None,
        optimisation: Optimisation = Optimisation(),  # noqa: B008 - frozen
        gradient_checkpointing: bool = False,
    ) -> None:
        focal_px = canonical_focal(camera, canonical_focal_px)
        spec = TimmSpec(model, max_depth, embed_dim, depth, num_heads, focal_px)
        network = TimmNetwork(spec)
        if weights == "timm":
            weights = timm_repository(model)
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
