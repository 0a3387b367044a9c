"""ONNX: `model.onnx`, any batch, height and width, and a `config.json` for people.

What the program is stands in its own metadata, so that the file is enough.
"""

import copy
import json
from pathlib import Path

import torch

from datamodules.files.whole import write_json
from models.artefacts.files import KEY
from models.artefacts.form import Asked, ExportOptions, Form, Opened
from models.artefacts.programs import OnnxNetwork
from models.artefacts.published.identity import CONFIG_FILE, ONNX_FILE
from models.errors import ExportError
from models.networks.exportable import open_sizes
from models.networks.interface import Network
from models.networks.presets import Unit

OPSET = 20
CANONICAL = ", times the focal length in pixels of the image, divided by {}"
WORDS: dict[Unit, str] = {
    "metres": "metres",
    "disparity": "affine disparity",
    "depth": "up to its scale",
}


class Onnx(Form[Opened]):
    """Runs anywhere; cannot be trained, exported or pushed again."""

    name = "onnx"
    needs = ("onnx", "onnxruntime", "onnxscript")
    library = "onnx"
    usage = (
        "import onnxruntime\n\n"
        'session = onnxruntime.InferenceSession("model.onnx")\n'
        'depth = session.run(None, {{"image": image}})[0]  # {unit}; config.json says '
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
