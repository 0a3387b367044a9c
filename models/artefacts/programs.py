"""ONNX programs of ours in the place of a network, run by one of two engines."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.extras import check_installed
from datamodules.sizes import Shrink
from models.artefacts.files import KEY, read_json
from models.artefacts.published.identity import CONFIG_FILE, stored_size
from models.networks import NetworkError, NetworkSpec
from models.networks.interface import DepthPredictor
from models.networks.presets import Unit

Runner = Literal["onnx", "openvino"]
PACKAGES: dict[Runner, str] = {"onnx": "onnxruntime", "openvino": "openvino"}


@dataclass(frozen=True)
class Program:
    """A program, ready to run."""

    run: Callable[[NDArray[Any]], NDArray[Any]]
    """Images (B, 3, H, W) to depth (B, 1, H, W)."""
    notes: Mapping[str, str]
    """That its file has of itself."""
    half: bool


class OnnxNetwork(DepthPredictor):
    """An ONNX program in the place of a network: for prediction only, on the CPU.

    As many threads compute as torch has.

    Args:
        path: A `.onnx` of ours.
        runner: What runs it.

    Raises:
        ExtraError: If what runs it is not installed.
        NetworkError: If it cannot be run, or does not say what it is.
    """

    def __init__(self, path: Path, runner: Runner = "onnx") -> None:
        super().__init__()
        self.runner = runner
        check_installed(str(path), "engines", PACKAGES[runner])
        try:
            self.program = RUNNERS[runner](path)
        except Exception as error:
            # The runtimes' errors have no common class but this.
            reason = str(error).strip().splitlines()[0]
            raise NetworkError(
                f"{path} is no ONNX program that can be run ({reason})"
            ) from None
        about = _about(path, self.program.notes)
        with path.open("rb") as file:
            self.sha256 = hashlib.file_digest(file, "sha256").digest()
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
        self.dtype = torch.float16 if self.program.half else torch.float32

    def get_extra_state(self) -> Tensor:
        """The SHA-256 that stands for the weights in it."""
        return torch.frombuffer(bytearray(self.sha256), dtype=torch.uint8)

    @property
    def unit(self) -> Unit:
        # Exports up to November 2026 do not say it.
        return self._unit or super().unit

    def forward(self, image: Tensor) -> Tensor:
        """Depth (B, 1, H, W) float32 of normalised images (B, 3, H, W)."""
        given = image.detach().cpu().to(self.dtype).numpy()
        depth = np.array(self.program.run(given), np.float32)
        return torch.from_numpy(depth).to(image.device)


def _onnx_runtime(path: Path) -> Program:
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )
    return Program(
        lambda image: session.run(None, {"image": image})[0],
        session.get_modelmeta().custom_metadata_map,
        "float16" in session.get_inputs()[0].type,
    )


def _openvino(path: Path) -> Program:
    """With open sizes, whatever the picture's.

    At a fixed one OpenVINO 2026.4 computes other depths: where a value follows from the
    size, its `Abs` comes out as the value itself, also a negative one, and so do the
    cubic weights of the position embeddings. With max(x, -x) in its place a fixed size
    is right to 1e-6, and 3 % faster (S, 266x350, one thread, AVX-512, 2026-11-28):
    too little for a program of each size.
    """
    import onnx
    import openvino  # type: ignore[import-untyped]

    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(path),
        "CPU",
        {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        },
    )
    stored = onnx.load(path, load_external_data=False)
    return Program(
        lambda image: compiled({"image": image})[0],
        {entry.key: entry.value for entry in stored.metadata_props},
        "f16" in str(compiled.inputs[0].get_element_type()),
    )


RUNNERS: dict[Runner, Callable[[Path], Program]] = {
    "onnx": _onnx_runtime,
    "openvino": _openvino,
}


def _about(path: Path, notes: Mapping[str, str]) -> dict[str, Any]:
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
