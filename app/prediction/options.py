"""What predict.py can be told, and what is wrong with it, before torch is imported."""

import math
import re
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Literal, get_args

from datamodules.errors import DataError
from datamodules.extras import check_installed
from datamodules.files.depths.writing import PIXELS_MAX, Colormap, png_scale
from datamodules.files.images.headers import Exif
from datamodules.sizes import (
    DEFAULT_BOUND,
    InputSize,
    Shrink,
    check_image_size,
    longest_side,
)
from models.artefacts import Engine
from models.calibration import Fit
from models.errors import ExportError
from models.networks.presets import NetworkSpec

Format = Literal["png", "npy", "pfm", "exr", "ply", "glb", "color"]
Precision = Literal["32-true", "16-mixed", "bf16-mixed"]
Accelerator = Literal["auto", "cpu", "gpu", "cuda", "mps"]
PointsPer = Literal["picture", "run"]


@dataclass(frozen=True)
class Source:
    """Which network."""

    model: str
    network: str | None = None
    base: str | None = None

    def __post_init__(self) -> None:
        if self.network is not None:
            NetworkSpec.parse(self.network)


@dataclass(frozen=True)
class HandOver:
    """What to write or publish of it."""

    export: str | None = None
    export_format: str | None = None
    export_half: bool = False
    export_base: str | None = None
    push_to_hub: str | None = None
    private: bool = False
    license: str | None = None

    def __post_init__(self) -> None:
        for name, needed in (
            ("export_format", self.wanted),
            ("export_half", self.export_format == "onnx"),
            ("export_base", self.export_format == "peft"),
            ("private", self.push_to_hub is not None),
            ("license", self.push_to_hub is not None),
        ):
            if getattr(self, name) and not needed:
                raise ExportError(f"{flag(name)} has no effect here: {NEEDS[name]}")

    @property
    def wanted(self) -> bool:
        """Whether anything is to be handed on."""
        return self.export is not None or self.push_to_hub is not None


@dataclass(frozen=True)
class Prediction:
    """Which pictures to predict, how, and what to write."""

    images: list[str] = field(default_factory=list)
    output: str = "predictions"
    formats: tuple[Format, ...] = ("png", "color")
    depth_scale: Literal["auto", "1000", "256"] = "auto"
    colormap: Colormap = "turbo"
    size: str | None = None
    tta: bool = False
    shrink: Shrink | None = None
    tile: bool = False
    exif: Exif = "apply"
    fx: float | None = None
    fy: float | None = None
    cx: float | None = None
    cy: float | None = None
    fov: float | None = None
    assume_fov: float | None = None
    points: str | None = None
    points_per: PointsPer = "picture"
    points_fit: Fit = "auto"
    points_scale: float | None = None
    batch_size: int = 8
    workers: int = 2
    precision: Precision = "32-true"
    engine: Engine | None = None
    accelerator: Accelerator = "auto"
    devices: str = "auto"
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.workers < 0:
            raise DataError(
                f"--batch-size {self.batch_size} must be at least 1 and --workers "
                f"{self.workers} at least 0"
            )
        if self.engine in ("onnx", "openvino") and self.precision != "32-true":
            raise DataError(
                f"--engine {self.engine} computes in float32; leave --precision "
                f"{self.precision} out, or give --engine torch"
            )
        if "glb" in self.formats:
            check_installed("the format glb", "mesh", "trimesh")
        for name in ("fov", "assume_fov"):
            if (value := getattr(self, name)) is not None and not 0 < value < 180:
                raise DataError(
                    f"{flag(name)} {value} must lie between 0 and 180 degrees"
                )
        for name in ("fx", "fy"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise DataError(f"--{name} {value} must be pixels, above 0 and finite")
        for name in ("cx", "cy"):
            if (value := getattr(self, name)) is not None and not math.isfinite(value):
                raise DataError(f"--{name} {value} must be pixels, and finite")
        given = [n for n in ("fx", "fov", "assume_fov") if getattr(self, n) is not None]
        if len(given) > 1:
            raise DataError(
                f"{' and '.join(map(flag, given))} say one thing twice; give one of "
                "them"
            )
        for name, kind in (("depth_scale", "png"), ("colormap", "color")):
            value = getattr(self, name)
            if value != DEFAULT[name] and kind not in self.formats:
                raise DataError(
                    f"{flag(name)} {value} has no effect here: give --formats {kind}, "
                    "too"
                )
        for name in ("points_per", "points_fit", "points_scale"):
            if self.points is None and getattr(self, name) != DEFAULT[name]:
                raise DataError(f"{flag(name)} has no effect here: give --points, too")
        if self.points is not None and not Path(self.points).exists():
            raise DataError(
                f"--points {self.points} does not exist; give a table with the columns "
                "image,x,y,depth, or a folder of sparse depth maps"
            )
        if (scale := self.points_scale) is not None and not 0 < scale < math.inf:
            raise DataError(
                f"--points-scale {scale} must be above 0: stored units per metre"
            )
        if not re.fullmatch(r"auto|-1|[1-9]\d*|\d+(,\d+)+", self.devices):
            raise DataError(
                f"--devices {self.devices!r} is no number of devices; use auto, a "
                "number, or numbers of devices such as 0,2"
            )
        self._asked_size()

    def input_size(self, own: InputSize | None, patch_px: int) -> InputSize:
        """The size that the network shall see.

        Args:
            own: That the model is for, if that is known.
            patch_px: Of the network.

        Raises:
            DataError: If `--size` is no whole number of patches, or less than one.
        """
        asked = self._asked_size()
        if asked is None:
            return DEFAULT_BOUND if own is None else own
        if isinstance(asked, tuple):
            return check_image_size(asked, patch_px, "--size")
        side = longest_side(asked) if isinstance(asked, str) else asked
        if side is not None and side < patch_px:
            raise DataError(f"--size {asked} is less than one patch of {patch_px} px")
        return asked

    def _asked_size(self) -> InputSize | None:
        if self.size in (None, "native") or longest_side(self.size or "") is not None:
            return self.size
        if self.size.isdecimal():
            return int(self.size)
        found = re.fullmatch(r"(\d+)x(\d+)", self.size)
        if not found:
            raise DataError(
                f"--size {self.size!r} is not a number, WxH, maxN, or native"
            )
        return int(found[2]), int(found[1])

    def scale(self, max_depth: float) -> int:
        """Units per metre of 16-bit PNGs.

        Raises:
            DataError: If depths up to `max_depth` metres do not fit them.
        """
        if self.depth_scale == "auto":
            return png_scale(max_depth)
        scale = int(self.depth_scale)
        if max_depth * scale > PIXELS_MAX:
            raise DataError(
                f"depths up to {max_depth:g} m times {scale} do not fit 16 bits; use "
                "--depth-scale 256 or auto"
            )
        return scale


NEEDS = {
    "export_format": "give --export FOLDER or --push-to-hub OWNER/NAME, too",
    "export_half": "half precision is an option of the onnx export alone",
    "export_base": "it is for --export-format peft",
    "private": "it is for --push-to-hub",
    "license": "it is for --push-to-hub",
}


def flag(name: str) -> str:
    """An option as command lines have it."""
    return f"--{name.replace('_', '-')}"


def defaults(*kinds: type) -> dict[str, object]:
    """Default of every field of some dataclasses of options."""
    return {
        found.name: found.default
        for kind in kinds
        for found in fields(kind)
        if found.default is not MISSING
    }


DEFAULT = defaults(Prediction)
CHOICES: dict[str, tuple[str, ...]] = {
    "formats": get_args(Format),
    "depth_scale": ("auto", "1000", "256"),
    "colormap": get_args(Colormap),
    "exif": get_args(Exif),
    "precision": get_args(Precision),
    "engine": get_args(Engine),
    "accelerator": get_args(Accelerator),
    "shrink": get_args(Shrink),
    "points_per": get_args(PointsPer),
    "points_fit": get_args(Fit),
}
