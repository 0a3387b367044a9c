"""A DINOv3 encoder, adapted, under a new DPT head."""

from typing import Literal, get_args

from models.adapters import AdapterConfig
from models.camera import CameraMode, canonical_focal
from models.errors import OptionError
from models.networks.timm_network import DINOv3Network, TimmSpec
from models.new_head import NewHeadModule
from models.optimisation import Optimisation

Size = Literal["tiny", "S", "S+", "B", "L"]
NAMES = {"S": "small", "S+": "small_plus", "B": "base", "L": "large"}


class DINOv3Module(NewHeadModule):
    """DINOv3 with a DPT head that is trained from scratch.

    Patches of 16 px: data.image_size is in multiples of 16. The weights' licence
    (dinov3-license) goes with everything that is made from them.

    Args:
        size: S, S+, B or L; tiny, for trying, has no published weights.
        weights: Encoder weights: a path (timm's file or Meta's), a Hub id, or
            dinov3-small, -small-plus, -base, -large; null starts at random.
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
        size: Size = "S",
        weights: str | None = "dinov3-small",
        adapter: AdapterConfig | None = None,
        start_depth: float | None = None,
        camera: CameraMode = "any",
        canonical_focal_px: float | None = None,
        optimisation: Optimisation = Optimisation(),  # noqa: B008 - frozen
        gradient_checkpointing: bool = False,
    ) -> None:
        focal_px = canonical_focal(camera, canonical_focal_px)
        network = DINOv3Network(spec_of(size, max_depth, focal_px))
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


def spec_of(
    size: Size, max_depth: float, canonical_focal_px: float | None = None
) -> TimmSpec:
    """The network of a size.

    Raises:
        OptionError: If there is no such size.
    """
    if size not in get_args(Size):
        allowed = ", ".join(get_args(Size))
        raise OptionError(f"size {size!r} is not known; use one of {allowed}")
    name = f"vit_{NAMES.get(size, 'small')}_patch16_dinov3"
    if size == "tiny":
        return TimmSpec(name, max_depth, 64, 4, 4, canonical_focal_px)
    return TimmSpec(name, max_depth, canonical_focal_px=canonical_focal_px)
