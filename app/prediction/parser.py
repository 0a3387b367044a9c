"""The command line of predict.py, whose complaints are one line."""

import argparse
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NoReturn, TypeVar

from app import version
from app.errors import fail
from app.prediction.choice import Choice
from app.prediction.options import CHOICES, HandOver, Prediction, Source, defaults, flag
from models.artefacts import FORMS
from models.networks.presets import DESCRIBED

DESCRIPTION = """Predict depth for pictures, or hand a trained network on (--export).

Pictures that fail are left out and named at the end, with exit code 1."""

HELP = {
    "model": "A run's .ckpt, an adapter, PEFT, merged or transformers folder, a .onnx, "
    "an official .pth or .safetensors, or a Hub id (owner/name[@revision]).",
    "network": "What an official file is, where its name does not tell.",
    "base": "What an adapter sits on, where its own folder does not say, or says a "
    "place that is no more.",
    "adapters": "Folder of adapters over the one network of --model: NAME/adapter.json "
    "and NAME/adapter.safetensors for each, as --export-format adapter writes them of "
    "a mixed run.",
    "adapter": "Which of several adapters: for every picture, and for --export.",
    "adapter_of": "Which of them each picture has: a CSV with the columns image and "
    "adapter; an empty one is the network without any.",
    "route": "Let the router that was trained beside them choose for each picture; "
    "predictions.json has its choice and how sure it was.",
    "output": "Folder for the results; it mirrors the folders of the pictures.",
    "formats": "What to write: png (16 bit), npy, pfm, exr, ply (point cloud), glb "
    "(textured surface for 3-D viewers), color.",
    "depth_scale": "Units per metre in 16-bit PNGs: 1000, 256, or auto (1000 if "
    "max_depth fits).",
    "colormap": "Of color pictures; their range is one for the whole run.",
    "size": "Network input: 518 (shape kept, both sides at least that), max504 (shape "
    "kept, the longer side that), WxH, or native. By default the model's own, else "
    "518. Exports are written for it.",
    "tta": "Average with the prediction of the mirrored picture: twice the time.",
    "shrink": "How pictures more than 1.5 times as large as the input become smaller: "
    "by the area's mean, or cubic without a filter, as in the official code. By "
    "default as the model was trained, else area.",
    "tile": "Predict at the picture's own size in overlapping tiles, for fine detail.",
    "exif": "Turn pictures upright by their EXIF orientation (apply), or predict them "
    "as stored (ignore).",
    "fx": "Focal length in pixels of the picture where EXIF does not tell: for point "
    "clouds, and for networks with a canonical camera.",
    "fy": "Vertical focal length; fx by default.",
    "cx": "Principal point; the middle by default.",
    "cy": "Likewise.",
    "fov": "Horizontal field of view in degrees, in place of fx.",
    "assume_fov": "Likewise, for pictures of which nothing else tells.",
    "points": "Known depths that predictions are fitted to: a table with the columns "
    "image,x,y,depth (x and y in pixels of the picture as shown, turned by EXIF, "
    "counted from 0 at the upper left; metres), or a folder of sparse depth maps, "
    "called as the pictures are. Relative networks then give metres, too.",
    "points_per": "A fit for each picture, or one for the run, also of pictures "
    "without points.",
    "points_fit": "median: one factor. scale_shift: a robust line, from 10 points on. "
    "auto: that if there are 10, else median. Of disparity always a robust line.",
    "points_scale": "Stored units per metre of the maps: 1000 for millimetres, 256 for "
    "KITTI, 1 for metres.",
    "batch_size": "Pictures at a time, of one shape.",
    "workers": "Processes that read pictures.",
    "precision": "Of the network's arithmetic.",
    "engine": "What computes: torch; on a CPU also onnx (ONNX Runtime) or openvino, "
    "from a program that is made once. By default torch, or onnx for a .onnx.",
    "accelerator": "cpu, gpu or auto.",
    "devices": "How many processors to share the pictures among.",
    "overwrite": "Predict again what is there already.",
    "export": "Write the adapted network into this folder.",
    "export_format": "In which form: merged (depth-anything, transformers, onnx), or "
    "the adapter alone (adapter, peft).",
    "export_half": "float16, for onnx.",
    "export_base": "For peft: Hub id or folder of the transformers base, written "
    "into the folder.",
    "push_to_hub": "Publish the export as OWNER/NAME on the Hugging Face Hub. The "
    "token is that of `hf auth login` or HF_TOKEN.",
    "private": "Publish for yourself alone.",
    "license": "Of what is published; the base's by default.",
}
T = TypeVar("T")
TYPES = {
    **dict.fromkeys(("fx", "fy", "cx", "cy", "fov", "assume_fov"), float),
    "points_scale": float,
    **dict.fromkeys(("batch_size", "workers"), int),
}


class OneLine(argparse.ArgumentParser):
    """A parser whose complaints are one line instead of a page of usage."""

    def error(self, message: str) -> NoReturn:
        fail(f"{message}; see {self.prog} --help")


class Version(argparse.Action):
    """Say the versions and end; they are looked up where they are asked for alone."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(version.told())
        parser.exit()


def parse(args: list[str] | None) -> tuple[Source, Choice, HandOver, Prediction]:
    """Which network and adapters, what to hand on, what to predict.

    Raises:
        UserError: For values that no parser's type tells apart.
    """
    given = vars(parser().parse_args(args))
    given["formats"] = tuple(given["formats"])
    return (
        _made(Source, given),
        _made(Choice, given),
        _made(HandOver, given),
        _made(Prediction, given),
    )


def parser() -> OneLine:
    """Options with hyphens; the dataclasses have the defaults."""
    found = OneLine(prog="predict.py", description=DESCRIPTION)
    found.add_argument(
        "--version",
        action=Version,
        nargs=0,
        default=argparse.SUPPRESS,
        help="Say which version this is, for reports, and end.",
    )
    found.add_argument(
        "images", nargs="*", help="Images, videos, folders, patterns, .txt lists."
    )
    found.add_argument("--model", required=True, help=HELP["model"])
    for name, default in defaults(Source, Choice, HandOver, Prediction).items():
        more: dict[str, Any] = {"choices": CHOICES.get(name)}
        if isinstance(default, bool):
            more = {"action": "store_true"}
        elif isinstance(default, tuple):
            more |= {"nargs": "+"}
        elif name in TYPES:
            more["type"] = TYPES[name]
        if name == "export_format":
            more["choices"] = tuple(FORMS)
        found.add_argument(flag(name), default=default, help=_help(name), **more)
    return found


def _made(kind: type[T], given: Mapping[str, Any]) -> T:
    assert is_dataclass(kind)
    return kind(**{found.name: given[found.name] for found in fields(kind)})


def _help(name: str) -> str:
    text = f"{HELP[name]} {DESCRIBED}." if name == "network" else HELP[name]
    return text.replace("%", "%%")
