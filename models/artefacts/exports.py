"""Write a merged network in the forms that run without this project, each verified."""

import copy
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from datamodules.batch import IMAGENET_MEAN, IMAGENET_STD
from models.artefacts.published.transformers_keys import to_transformers
from models.artefacts.published.weights import save_network
from models.networks import DepthNetwork, load_depth_anything
from models.networks.encoder import PATCH_PX
from models.networks.exportable import open_sizes


class ExportError(Exception):
    """A network that cannot be written in some form; the message says why."""


MergedFormat = Literal["depth-anything", "transformers", "onnx"]
Reopened = Callable[[Tensor], Tensor]
"""What was written, loaded again: images (B, 3, H, W) to depth (B, 1, H, W)."""

ONNX_FILE = "model.onnx"
OPSET = 20
TOLERANCE = {"depth-anything": 0.0, "transformers": 1e-4, "onnx": 1e-3, "half": 2e-2}
"""Largest |a - b| / |a| over the probes. Files of ours hold the same numbers;
`transformers` and ONNX Runtime sum in another order; half has 11 bits."""
NEEDS = {
    "transformers": ("transformers",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
}


def save_merged(
    network: DepthNetwork,
    folder: Path,
    form: MergedFormat,
    *,
    image_size: tuple[int, int],
    notes: Mapping[str, object],
    half: bool = False,
) -> float:
    """Write a network without adapters, reload it, compare, and only then keep it.

    Args:
        network: In float32; its adapters merged.
        folder: Must not exist, or be empty. It appears whole or not at all.
        form: `depth-anything`: `config.json` and `model.safetensors` with the official
            keys. `transformers`: a folder for `AutoModelForDepthEstimation` and
            `pipeline("depth-estimation")`. `onnx`: `model.onnx`, any batch, height and
            width (multiples of 14), opset 20, and a `config.json`.
        image_size: (rows, cols) that the network was trained at.
        notes: Further entries for `config.json`, such as where the network comes from.
        half: float16 weights and arithmetic, ONNX only.

    Returns:
        The largest relative difference on the probe images.

    Raises:
        ExportError: If a package is missing, the folder is taken, or the difference is
            above the form's tolerance.
    """
    missing = [name for name in NEEDS.get(form, ()) if find_spec(name) is None]
    if missing:
        raise ExportError(
            f"the {form} export needs {', '.join(missing)}; pip install -e '.[export]'"
        )
    if half and form != "onnx":
        raise ExportError("half precision is an option of the onnx export alone")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder} exists and is not empty; give another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    network.eval()
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder.parent) as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        reopened = _write(network, new, form, image_size, notes, half)
        worst = 0.0
        for probe in probes(network, image_size, form):
            worst = max(worst, difference(network, reopened, probe))
        allowed = TOLERANCE["half" if half else form]
        if not worst <= allowed:
            raise ExportError(
                f"the {form} export differs from the network by {worst:.1e} (relative)"
                f", where {allowed:.0e} is allowed; it was not kept"
            )
        if folder.exists():
            folder.rmdir()
        shutil.move(new, folder)
    return worst


def probes(
    network: DepthNetwork, image_size: tuple[int, int], form: MergedFormat
) -> list[Tensor]:
    """Images to compare on: smooth, the same at every call.

    `transformers` resamples position embeddings by another rule, so only the grid of
    pre-training can agree there (`elsewhere` measures the rest).
    """
    side = network.spec.preset.pretrain_px
    generator = torch.Generator().manual_seed(0)

    def image(batch: int, size: tuple[int, int]) -> Tensor:
        coarse = torch.randn(batch, 3, 6, 8, generator=generator)
        return torch.nn.functional.interpolate(coarse, size, mode="bicubic")

    if form == "transformers":
        return [image(1, (side, side))]
    return [image(1, image_size), image(3, (5 * PATCH_PX, 7 * PATCH_PX))]


@torch.no_grad()
def difference(network: DepthNetwork, reopened: Reopened, image: Tensor) -> float:
    """Largest |a - b| / |a| between the two on one batch of images.

    |a| is at least a thousandth of its mean: disparity may be 0.
    """
    expected, found = network(image), reopened(image)
    scale = expected.abs().clamp(min=1e-3 * expected.abs().mean().item())
    worst: float = ((found - expected).abs() / scale).max().item()
    return worst


def _write(
    network: DepthNetwork,
    folder: Path,
    form: MergedFormat,
    image_size: tuple[int, int],
    notes: Mapping[str, object],
    half: bool,
) -> Reopened:
    if form == "depth-anything":
        save_network(network, folder, {"image_size": list(image_size), **notes})
        spec = network.spec
        return load_depth_anything(
            folder,
            size=spec.size,
            version=spec.version,
            kind=spec.kind,
            max_depth=spec.max_depth,
        ).eval()
    if form == "transformers":
        return _write_transformers(network, folder, image_size, notes)
    return _write_onnx(network, folder, image_size, notes, half)


def _write_transformers(
    network: DepthNetwork,
    folder: Path,
    image_size: tuple[int, int],
    notes: Mapping[str, object],
) -> Reopened:
    import transformers

    spec, preset = network.spec, network.spec.preset
    if spec.max_depth is not None and spec.max_depth != int(spec.max_depth):
        raise ExportError(
            f"transformers stores max_depth as a whole number of metres, not "
            f"{spec.max_depth}; export as onnx, or train with a whole max_depth"
        )
    # transformers leaves these two signatures untyped.
    new: Any = transformers.DepthAnythingConfig
    encoder: Any = transformers.Dinov2Config
    config = new(
        backbone_config=encoder(
            hidden_size=preset.embed_dim,
            num_hidden_layers=preset.depth,
            num_attention_heads=preset.num_heads,
            image_size=preset.pretrain_px,
            patch_size=PATCH_PX,
            use_swiglu_ffn=preset.swiglu,
            out_indices=[tap + 1 for tap in preset.taps(spec.version)],
            apply_layernorm=True,
            reshape_hidden_states=False,
        ),
        reassemble_hidden_size=preset.embed_dim,
        neck_hidden_sizes=list(preset.out_channels),
        fusion_hidden_size=preset.features,
        depth_estimation_type=spec.kind,
        max_depth=int(spec.max_depth or 1),
        lava_depth=dict(notes),
    )
    model = transformers.DepthAnythingForDepthEstimation(config)
    model.load_state_dict(to_transformers(network.state_dict()))
    model.save_pretrained(folder)
    rows, cols = image_size
    # The library's rule for "keep the shape" scales as little as possible, so a size of
    # the training's own shape is what brings photographs nearest to it.
    processor = transformers.DPTImageProcessor(
        size={"height": rows, "width": cols},
        keep_aspect_ratio=True,
        ensure_multiple_of=PATCH_PX,
        resample=3,
        image_mean=list(IMAGENET_MEAN),
        image_std=list(IMAGENET_STD),
        do_pad=False,
    )
    processor.save_pretrained(folder)
    again = transformers.AutoModelForDepthEstimation.from_pretrained(folder).eval()

    def reopened(image: Tensor) -> Tensor:
        depth: Tensor = again(image).predicted_depth
        return depth[:, None]

    return reopened


def _write_onnx(
    network: DepthNetwork,
    folder: Path,
    image_size: tuple[int, int],
    notes: Mapping[str, object],
    half: bool,
) -> Reopened:
    import onnxruntime  # type: ignore[import-untyped]

    dtype = torch.float16 if half else torch.float32
    side = 5 * PATCH_PX
    traced = copy.deepcopy(network).half() if half else network
    with open_sizes(traced), torch.no_grad():
        dynamic = torch.export.Dim.DYNAMIC
        program = torch.onnx.export(
            traced,
            (torch.zeros(2, 3, side, side + PATCH_PX, dtype=dtype),),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},),
            input_names=["image"],
            output_names=["depth"],
            external_data=False,
            verbose=False,
        )
    assert program is not None
    path = folder / ONNX_FILE
    program.save(path)
    spec = network.spec
    config = {
        "input": "image (batch, 3, height, width), sides multiples of 14",
        "dtype": "float16" if half else "float32",
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
        "image_size": list(image_size),
        "output": "depth (batch, 1, height, width), "
        + ("metres" if spec.kind == "metric" else "affine disparity"),
        "max_depth": spec.max_depth,
        "opset": OPSET,
        **notes,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def reopened(image: Tensor) -> Tensor:
        outputs = session.run(None, {"image": image.to(dtype).numpy()})
        return torch.from_numpy(outputs[0]).float()

    return reopened
