"""ONNX: `model.onnx`, any batch, height and width, and a `config.json` for people.

What the program is stands in its own metadata, so that the file is enough.
"""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datamodules.files.whole import write_json
from datamodules.sizes import Shrink
from models.artefacts.files import KEY, read_json
from models.artefacts.form import Asked, ExportOptions, Form, Opened
from models.artefacts.published.identity import CONFIG_FILE, ONNX_FILE, stored_size
from models.errors import ExportError
from models.networks import NetworkError, NetworkSpec
from models.networks.exportable import open_sizes
from models.networks.interface import DepthPredictor, Network
from models.networks.presets import Unit

OPSET = 20
CANONICAL = ", times the focal length in pixels of the image, divided by {}"
WORDS: dict[Unit, str] = {
    "metres": "metres",
    "disparity": "affine disparity",
    "depth": "up to its scale",
}


class OnnxNetwork(DepthPredictor):
    """An ONNX program in the place of a network: for prediction only.

    Args:
        path: A `.onnx` of ours.

    Raises:
        NetworkError: If it cannot be run, or does not say what it is.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            import onnxruntime  # type: ignore[import-untyped]
        except ModuleNotFoundError:
            raise NetworkError(
                f"{path} needs onnxruntime; pip install -e '.[export]'"
            ) from None
        try:
            self.session = onnxruntime.InferenceSession(
                path, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # The runtime's errors have no common class but this.
            reason = str(error).splitlines()[0]
            raise NetworkError(
                f"{path} is no ONNX program that can be run ({reason})"
            ) from None
        about = self._about(path)
        with path.open("rb") as program:
            self._sha256 = hashlib.file_digest(program, "sha256").digest()
        self.patch_px = about.get("patch_px", 14)
        self.image_mean = tuple(about["image_mean"])
        self.image_std = tuple(about["image_std"])
        self.image_size = stored_size(about["image_size"])
        max_depth = about["max_depth"]
        kind = "relative" if max_depth is None else "metric"
        focal_px = about.get("canonical_focal_px")
        self.spec = NetworkSpec(
            kind=kind,  # type: ignore[arg-type]
            max_depth=max_depth,
            canonical_focal_px=focal_px,
        )
        self._unit = about.get("unit")
        self.image_shrink: Shrink = about.get("image_shrink", "area")
        half = "float16" in self.session.get_inputs()[0].type
        self.dtype = torch.float16 if half else torch.float32

    def get_extra_state(self) -> Tensor:
        """The program's SHA-256, which stands for the weights in it."""
        return torch.frombuffer(bytearray(self._sha256), dtype=torch.uint8)

    @property
    def unit(self) -> Unit:
        # Exports up to November 2026 do not say it.
        return self._unit or super().unit

    def forward(self, image: Tensor) -> Tensor:
        """Depth (B, 1, H, W) float32 of normalised images (B, 3, H, W)."""
        given = image.detach().cpu().to(self.dtype).numpy()
        outputs = self.session.run(None, {"image": given})
        return torch.from_numpy(outputs[0]).float().to(image.device)

    def _about(self, path: Path) -> dict[str, Any]:
        notes = self.session.get_modelmeta().custom_metadata_map
        if KEY in notes:
            about: dict[str, Any] = json.loads(notes[KEY])
            return about
        # Exports up to November 2026 have it beside the program alone.
        config = path.with_name(CONFIG_FILE)
        about = read_json(config, NetworkError) if config.is_file() else {}
        if "image_mean" not in about:
            raise NetworkError(
                f"{path} does not say how its input is normalised; only programs that "
                "--export-format onnx wrote can be opened"
            )
        return about


class Onnx(Form[Opened]):
    """Runs anywhere; cannot be trained, exported or pushed again."""

    name = "onnx"
    needs = ("onnx", "onnxruntime", "onnxscript")
    library = "onnx"
    usage = (
        "import onnxruntime\n\n"
        'session = onnxruntime.InferenceSession("model.onnx")\n'
        'depth = session.run(None, {{"image": image}})[0]  # metres; config.json says '
        "how to normalise"
    )
    tolerance = 1e-3
    """ONNX Runtime sums in another order."""
    half_tolerance = 2e-2
    """float16 has 11 bits."""

    def allowed(self, options: ExportOptions) -> float:
        return self.half_tolerance if options.half else self.tolerance

    def recognises(self, path: Path) -> bool:
        return path.suffix == ".onnx" or (path / ONNX_FILE).is_file()

    def open(self, path: Path, asked: Asked) -> Opened:
        network = OnnxNetwork(path / ONNX_FILE if path.is_dir() else path)
        size, shrink = network.image_size, network.image_shrink
        return Opened(network, None, size, str(path), shrink)

    def write(self, opened: Opened, folder: Path, options: ExportOptions) -> None:
        network = opened.adapted
        program = _traced(network, half=options.half)
        spec, focal_px = network.spec, network.canonical_focal_px
        about = {
            "input": "image (batch, 3, height, width), sides multiples of "
            f"{network.patch_px}",
            "dtype": "float16" if options.half else "float32",
            "patch_px": network.patch_px,
            "image_mean": list(network.image_mean),
            "image_std": list(network.image_std),
            "image_size": options.image_size,
            "output": f"depth (batch, 1, height, width), {WORDS[network.unit]}"
            + ("" if focal_px is None else CANONICAL.format(focal_px)),
            "unit": network.unit,
            "max_depth": spec.max_depth,
            "canonical_focal_px": network.canonical_focal_px,
            "opset": OPSET,
            **opened.notes(),
        }
        program.model.metadata_props[KEY] = json.dumps(about)
        program.save(folder / ONNX_FILE)
        write_json(folder / CONFIG_FILE, about)


FORM = Onnx()


def _traced(network: Network, *, half: bool) -> torch.onnx.ONNXProgram:
    """The program of a network, its batch, height and width open.

    Raises:
        ExportError: If this torch's exporter cannot make it.
    """
    dtype = torch.float16 if half else torch.float32
    side = 5 * network.patch_px
    traced = copy.deepcopy(network).half() if half else network
    dynamic = torch.export.Dim.DYNAMIC
    try:
        with open_sizes(traced), torch.no_grad():
            program = torch.onnx.export(
                traced,
                (torch.zeros(2, 3, side, side + network.patch_px, dtype=dtype),),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},),
                input_names=["image"],
                output_names=["depth"],
                external_data=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ExportError(
            f"torch {torch.__version__} cannot export this network as ONNX "
            f"({str(error).splitlines()[0]}); torch 2.11 and newer can"
        ) from None
    assert program is not None  # only without dynamo
    return program
