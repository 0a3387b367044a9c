"""The `transformers` folder: for `AutoModelForDepthEstimation` and its pipeline."""

from pathlib import Path
from typing import Any

from torch import Tensor

from datamodules.sizes import InputSize
from models.artefacts.files import KEY
from models.artefacts.form import (
    Asked,
    ExportOptions,
    Form,
    Opened,
    Reopened,
    smooth,
)
from models.artefacts.merged import FORM as MERGED
from models.artefacts.published.identity import CONFIG_FILE
from models.artefacts.published.transformers_keys import to_transformers
from models.errors import ExportError
from models.networks import DepthNetwork


class Transformers(Form[Opened]):
    """Equal on the grid of pre-training.

    Elsewhere `transformers` resamples position embeddings by a rule of its own.
    """

    name = "transformers"
    needs = ("transformers",)
    library = "transformers"
    usage = (
        "from transformers import pipeline\n\n"
        'depth = pipeline("depth-estimation", model="{repo}")("photo.jpg")'
        '["predicted_depth"]  # {unit}'
    )
    tolerance = 1e-4
    """`transformers` sums in another order."""

    def recognises(self, path: Path) -> bool:
        config = path / CONFIG_FILE
        return config.is_file() and '"model_type": "depth_anything"' in (
            config.read_text()
        )

    def open(self, path: Path, asked: Asked) -> Opened:
        return MERGED.open(path, asked)

    def reopened(self, folder: Path) -> Reopened:
        import transformers

        model = transformers.AutoModelForDepthEstimation.from_pretrained(folder).eval()

        def depth(image: Tensor) -> Tensor:
            predicted: Tensor = model(image).predicted_depth
            return predicted[:, None]

        return depth

    def probes(self, opened: Opened, size: InputSize) -> list[Tensor]:
        network = opened.network
        assert isinstance(network, DepthNetwork)
        side = network.spec.preset.pretrain_px
        return [smooth(1, (side, side))]

    def write(self, opened: Opened, folder: Path, options: ExportOptions) -> None:
        import transformers

        network = opened.adapted
        if type(network) is not DepthNetwork:
            raise ExportError(
                f"transformers has no class for a {type(network).__name__}; export it "
                "as depth-anything or onnx"
            )
        spec, preset = network.spec, network.spec.preset
        if spec.version == "v3":
            raise ExportError(
                f"transformers {transformers.__version__} has no class for Depth "
                "Anything 3; export it as depth-anything (its own code's layout) or "
                "onnx"
            )
        if spec.max_depth is not None and spec.max_depth != int(spec.max_depth):
            raise ExportError(
                f"transformers stores max_depth as a whole number of metres, not "
                f"{spec.max_depth}; export as onnx, or train with a whole max_depth"
            )
        size, focal_px = options.image_size, spec.canonical_focal_px
        camera = {} if focal_px is None else {"canonical_focal_px": focal_px}
        # transformers leaves these two signatures untyped.
        new: Any = transformers.DepthAnythingConfig
        encoder: Any = transformers.Dinov2Config
        config = new(
            backbone_config=encoder(
                hidden_size=preset.embed_dim,
                num_hidden_layers=preset.depth,
                num_attention_heads=preset.num_heads,
                image_size=preset.pretrain_px,
                patch_size=network.patch_px,
                use_swiglu_ffn=preset.swiglu,
                out_indices=[tap + 1 for tap in network.blocks],
                apply_layernorm=True,
                reshape_hidden_states=False,
            ),
            reassemble_hidden_size=preset.embed_dim,
            neck_hidden_sizes=list(preset.out_channels),
            fusion_hidden_size=preset.features,
            depth_estimation_type=spec.kind,
            max_depth=int(spec.max_depth or 1),
            **{KEY: {**opened.notes(), "image_size": size, **camera}},
        )
        model = transformers.DepthAnythingForDepthEstimation(config)
        model.load_state_dict(to_transformers(network.state_dict()))
        model.save_pretrained(folder)
        _processor(network, size).save_pretrained(folder)


def _processor(network: DepthNetwork, size: InputSize) -> Any:
    """The library's preparation of pictures, with the size that ours would have.

    Raises:
        ExportError: For pictures' own sizes, which the library has no word for.
    """
    import transformers

    if isinstance(size, str):
        raise ExportError(
            "a transformers folder has one size for all pictures; give --size WxH or a "
            f"number in place of {size}"
        )
    # A number keeps the picture's shape, a pair does not: as predict.py does.
    rows, cols = size if isinstance(size, tuple) else (size, size)
    return transformers.DPTImageProcessor(
        size={"height": rows, "width": cols},
        keep_aspect_ratio=not isinstance(size, tuple),
        ensure_multiple_of=network.patch_px,
        resample=3,
        image_mean=list(network.image_mean),
        image_std=list(network.image_std),
        do_pad=False,
    )


FORM = Transformers()
