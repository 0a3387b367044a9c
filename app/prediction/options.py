"""What predict.py can be told."""

import re
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from app.errors import OneLineParser
from app.prediction.writer import Format
from datamodules.batch import DataError
from datamodules.files.depth_writers import PIXELS_MAX, Colormap, png_scale
from datamodules.photographs import InputSize
from datamodules.transforms import check_image_size
from models.artefacts.opening import DESCRIBED

Precision = Literal["32-true", "16-mixed", "bf16-mixed"]
ExportFormat = Literal["depth-anything", "transformers", "onnx", "peft"]
LOWER_BOUND = 518
DESCRIPTION = """Predict depth for pictures, or hand a trained network on (--export).

Pictures that fail are left out and named at the end, with exit code 1."""

HELP = {
    "model": "A run's .ckpt, an adapter folder, a merged folder, an official .pth or "
    ".safetensors, or a Hub id.",
    "network": "What an official file is, where its name does not tell.",
    "output": "Folder for the results; it mirrors the folders of the pictures.",
    "formats": "What to write: png (16 bit), npy, pfm, exr, ply (point cloud), color.",
    "depth_scale": "Units per metre in 16-bit PNGs: 1000, 256, or auto (1000 if "
    "max_depth fits).",
    "colormap": "Of color pictures; their range is one for the whole run.",
    "size": "Network input: 518 (shape kept, both sides at least that), WxH, or "
    "native. The training size by default, else 518.",
    "tta": "Average with the prediction of the mirrored picture: twice the time.",
    "tile": "Predict at the picture's own size in overlapping tiles, for fine detail.",
    "fx": "Focal length in pixels of the picture, for point clouds.",
    "fy": "Vertical focal length; fx by default.",
    "cx": "Principal point; the middle by default.",
    "cy": "Likewise.",
    "fov": "Horizontal field of view in degrees, in place of fx.",
    "batch_size": "Pictures at a time, of one shape.",
    "workers": "Processes that read pictures.",
    "precision": "Of the network's arithmetic.",
    "accelerator": "cpu, gpu or auto.",
    "devices": "How many processors to share the pictures among.",
    "overwrite": "Predict again what is there already.",
    "export": "Write the adapted network into this folder.",
    "export_format": "In which form: merged (depth-anything, transformers, onnx), or "
    "the adapter alone (peft).",
    "export_half": "float16, for onnx.",
    "export_base": "For peft: Hub id or folder of the transformers base, written "
    "into the folder.",
    "push_to_hub": "Publish the export as OWNER/NAME on the Hugging Face Hub. The "
    "token is that of `hf auth login` or HF_TOKEN.",
    "private": "Publish for yourself alone.",
    "license": "Of what is published; the base's by default.",
}


@dataclass(frozen=True)
class Options:
    """What predict.py can be told; `HELP` says what each means."""

    images: list[str] = field(default_factory=list)
    model: str = ""
    network: str | None = None
    output: str = "predictions"
    formats: tuple[Format, ...] = ("png", "color")
    depth_scale: str = "auto"
    colormap: Colormap = "turbo"
    size: str | None = None
    tta: bool = False
    tile: bool = False
    fx: float | None = None
    fy: float | None = None
    cx: float | None = None
    cy: float | None = None
    fov: float | None = None
    batch_size: int = 8
    workers: int = 2
    precision: Precision = "32-true"
    accelerator: str = "auto"
    devices: str = "auto"
    overwrite: bool = False
    export: str | None = None
    export_format: ExportFormat = "depth-anything"
    export_half: bool = False
    export_base: str | None = None
    push_to_hub: str | None = None
    private: bool = False
    license: str | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.workers < 0:
            raise DataError(
                f"--batch-size {self.batch_size} must be at least 1 and --workers "
                f"{self.workers} at least 0"
            )
        if self.depth_scale not in ("auto", "1000", "256"):
            raise DataError(
                f"--depth-scale {self.depth_scale!r} is not known; use auto, 1000 "
                "or 256"
            )
        if self.fov is not None and not 0 < self.fov < 180:
            raise DataError(f"--fov {self.fov} must lie between 0 and 180 degrees")
        for name in ("fx", "fy"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise DataError(f"--{name} {value} must be above 0 pixels")

    def input_size(self, trained: tuple[int, int] | None) -> InputSize:
        """The size that the network shall see."""
        if self.size is None:
            return LOWER_BOUND if trained is None else trained
        if self.size == "native":
            return "native"
        if self.size.isdecimal() and int(self.size) >= 14:
            return int(self.size)
        found = re.fullmatch(r"(\d+)x(\d+)", self.size)
        if not found:
            raise DataError(f"--size {self.size!r} is not a number, WxH, or native")
        return check_image_size((int(found[2]), int(found[1])), "--size")

    def scale(self, max_depth: float) -> int:
        """Units per metre of 16-bit PNGs."""
        if self.depth_scale == "auto":
            return png_scale(max_depth)
        scale = int(self.depth_scale)
        if max_depth * scale > PIXELS_MAX:
            raise DataError(
                f"depths up to {max_depth:g} m times {scale} do not fit 16 bits; use "
                "--depth-scale 256 or auto"
            )
        return scale


def parser() -> OneLineParser:
    """Options with hyphens, as command lines have them; `Options` has the defaults."""
    found = OneLineParser(prog="predict.py", description=DESCRIPTION)
    defaults = {option.name: option.default for option in fields(Options)}

    def add(name: str, text: str = "", **more: Any) -> None:
        flag, default = f"--{name.replace('_', '-')}", defaults[name]
        if isinstance(default, tuple):
            default = list(default)  # what the parser makes of several values
        found.add_argument(flag, default=default, help=f"{HELP[name]}{text}", **more)

    found.add_argument(
        "images", nargs="*", help="Images, videos, folders, patterns, .txt lists."
    )
    found.add_argument("--model", required=True, help=HELP["model"])
    add("network", f" {DESCRIBED}.")
    add("output")
    add("formats", nargs="+", choices=list(get_args(Format)))
    add("depth_scale")
    add("colormap", choices=list(get_args(Colormap)))
    add("size")
    for name in ("tta", "tile"):
        add(name, action="store_true")
    for name in ("fx", "fy", "cx", "cy", "fov"):
        add(name, type=float)
    for name in ("batch_size", "workers"):
        add(name, type=int)
    add("precision", choices=list(get_args(Precision)))
    add("accelerator")
    add("devices")
    add("overwrite", action="store_true")
    add("export")
    add("export_format", choices=list(get_args(ExportFormat)))
    add("export_half", action="store_true")
    add("export_base")
    add("push_to_hub")
    add("private", action="store_true")
    add("license")
    return found
