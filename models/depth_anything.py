"""Depth Anything v1, v2 or monocular 3, adapted to metric depth."""

from lightning.pytorch.utilities import rank_zero_warn

from models.adapters import AdapterConfig, adapt
from models.artefacts.base import Base
from models.artefacts.depth_record import DepthRecord
from models.camera import CameraMode, canonical_focal
from models.depth_module import DepthModule
from models.errors import OptionError
from models.networks import DepthNetwork, NetworkSpec
from models.networks.presets import Kind, Size, Version
from models.optimisation import Optimisation


class DepthAnythingModule(DepthModule):
    """Depth Anything of one size with an adapter, or trained in full.

    Args:
        size: tiny, mini, S, B, L or G; of v3 tiny or L.
        version: v1, v2, or v3 (DA3MONO-LARGE, DA3METRIC-LARGE); files of the first two
            look alike, so take care to say which.
        weights: Base weights: a path (.pth, .safetensors, a merged or transformers
            folder, a .ckpt of a whole network), a Hub id (owner/name[@revision]), a
            known name such as depth-anything-v2-small or da3mono-large, or
            tiny-rooms or tiny-worlds; null starts at random.
        adapter: Method and options; null trains the whole network.
        max_depth: Metres at which the output saturates, in v3 those that labels reach.
            Linked to data.max_depth: a value given here is overruled.
        image_size: Network input (rows, cols). Linked to data.image_size.
        start_depth: Metres that every pixel starts at where the base is relative or
            random, and without effect on a metric one; null takes a quarter of
            max_depth. Of v3, whose relative base predicts depth up to a scale, only
            that scale is changed. A metric base keeps its output as a part of
            max_depth, as official code does: one of 80 m predicts an eighth of its
            metres with a max_depth of 10.
        kind: relative keeps the base's affine disparity, for `test --align disparity`
            of an un-adapted network (of v3: depth, and `--align median`); it cannot be
            trained.
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
        version: Version = "v2",
        weights: str | None = "depth-anything-v2-small",
        adapter: AdapterConfig | None = None,
        start_depth: float | None = None,
        kind: Kind = "metric",
        camera: CameraMode = "any",
        canonical_focal_px: float | None = None,
        optimisation: Optimisation = Optimisation(),  # noqa: B008 - frozen
        gradient_checkpointing: bool = False,
    ) -> None:
        focal_px = canonical_focal(camera, canonical_focal_px)
        relative = kind == "relative"
        spec = NetworkSpec(
            size, version, kind, None if relative else max_depth, focal_px
        )
        if relative and adapter is not None:
            raise OptionError(
                "a relative network is tested as it is: set model.adapter to null"
            )
        base = Base.found(weights)
        if relative and base.kind() == "metric":
            raise OptionError(
                f"{weights} holds a metric network: leave model.kind at metric"
            )
        network = DepthNetwork(spec)
        base.fill(network)
        record = DepthRecord(
            network=spec,
            image_size=image_size,
            base=base,
            base_sha256=base.fingerprint(network),
            adapter=adapter,
        )
        if base.kind() != "metric" and not relative:
            network.start_at_depth(
                max_depth / 4 if start_depth is None else start_depth
            )
        elif start_depth is not None and not relative:
            rank_zero_warn(
                f"start_depth {start_depth:g} has no effect: {weights} is metric, "
                "and training begins at its metres"
            )
        if adapter is not None:
            adapt(network, adapter)
        if gradient_checkpointing:
            network.checkpoint_gradients()
        super().__init__(network, record, optimisation)
