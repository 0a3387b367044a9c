"""What weights say about themselves, so that a wrong pairing can be refused.

v1 and v2, relative and metric files have the same keys and shapes. Five things tell:
`config.json` of a merged folder of ours, that of a `transformers` folder, that of Depth
Anything 3, what a checkpoint of ours records, and the names under which the official
files were published.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from datamodules.sizes import InputSize, Shrink
from models.artefacts.descriptions import check_depth, check_version, readable
from models.artefacts.families import network_from_dict
from models.artefacts.files import KEY, read_json, read_torch
from models.artefacts.published import depth_anything_3
from models.networks.depth_network import DepthNetwork
from models.networks.interface import Network, OutputSpec, camera_of
from models.networks.presets import (
    PRESETS,
    Kind,
    NetworkError,
    Size,
    Version,
)

CONFIG_FILE, PREPROCESSOR_FILE = "config.json", "preprocessor_config.json"
ADAPTER_FILES = ("adapter.json", "adapter_config.json")
"""What makes a folder one of an adapter alone: ours, PEFT's."""
ONNX_FILE = "model.onnx"
FORMAT = "lava-depth"
OFFICIAL = re.compile(
    r"depth_anything_v2_(?:metric_(?P<domain>hypersim|vkitti)_)?vit(?P<v2>[sblg])\b"
    r"|depth_anything_vit(?P<v1>[sbl])14\b"
)
WEIGHTS_FILE = "model.safetensors"
OFFICIAL_MAX_DEPTH = {"hypersim": 20.0, "vkitti": 80.0}


@dataclass(frozen=True)
class Identity:
    """What is known of a file; None where nothing tells."""

    size: Size | None = None
    version: Version | None = None
    kind: Kind | None = None
    max_depth: float | None = None
    image_size: InputSize | None = None
    """That it was trained at, or is used at."""
    canonical_focal_px: float | None = None
    family: type[Network] | None = field(default=None, compare=False)
    spec: OutputSpec | None = field(default=None, compare=False)
    """All of it, with its family, where the file says all."""
    image_shrink: Shrink = field(default="area", kw_only=True)
    """How larger pictures are brought to its input: as in training."""

    @classmethod
    def of(
        cls,
        family: type[Network],
        spec: OutputSpec,
        image_size: InputSize | None,
        image_shrink: Shrink = "area",
    ) -> "Identity":
        """Of a file that says everything."""
        size, version = getattr(spec, "size", None), getattr(spec, "version", None)
        focal_px = camera_of(spec)
        about = (size, version, spec.kind, spec.max_depth, image_size, focal_px)
        return cls(*about, family, spec, image_shrink=image_shrink)

    def check(self, source: str, spec: OutputSpec, *, kind: bool) -> None:
        """Refuse a network that these weights are not for.

        Args:
            source: For the message.
            spec: What was asked for.
            kind: Whether relative weights may not become a metric network, or the
                other way round.
        """
        for name in ("size", "version", *(("kind",) if kind else ())):
            own, asked = getattr(self, name), getattr(spec, name, None)
            if own is not None and asked is not None and own != asked:
                raise NetworkError(
                    f"{source} holds a network of {name} {own!r}, not {asked!r}; ask "
                    "for that one"
                )


def identify(path: Path) -> Identity:
    """What a weights file or folder says about its network.

    Raises:
        NetworkError: If its `config.json` is damaged or of another kind of network.
    """
    # Weights that are called as in a folder have its description beside them.
    folder = path.parent if path.name == WEIGHTS_FILE else path
    config = folder / CONFIG_FILE
    if config.is_file():
        content = read_json(config, NetworkError)
        if content.get("format") == FORMAT:
            check_version(content, str(config))
            with readable(config):
                return _said(content)
        if content.get("model_type") == "depth_anything":
            return _from_transformers(content, folder)
        if isinstance(called := content.get(depth_anything_3.MODEL_NAME), str):
            depth_anything_3.check_monocular(str(path), (), called)
            if official := depth_anything_3.OFFICIAL.search(called):
                return _of_version_3(official)
    if path.suffix == ".ckpt" and path.is_file():
        checkpoint = read_torch(path, NetworkError)
        if isinstance(checkpoint, Mapping) and KEY in checkpoint:
            record = checkpoint[KEY]
            check_version(record, str(path))
            check_depth(record, str(path))
            if "network" not in record:
                raise merge_first(path)
            with readable(path):
                return _said(record)
    # The Hub's cache keeps the repository's name in a folder's.
    cached = [part for part in path.parts if part.startswith("models--")]
    for name in (path.name, *cached):
        if found := OFFICIAL.search(name):
            return _from_name(found)
        if found := depth_anything_3.OFFICIAL.search(name):
            return _of_version_3(found)
    return Identity()


def merge_first(path: Path) -> NetworkError:
    """Why an adapter cannot be a base, and what makes one of it."""
    return NetworkError(
        f"{path} holds no whole network to start from; make one with: python "
        f"predict.py --model {path} --export MERGED (of an ONNX program: of what it "
        "was exported from; of a mixed run with --adapter NAME, too), then give MERGED"
    )


def stored_size(size: Any) -> InputSize | None:
    """An input size as JSON has it."""
    return (int(size[0]), int(size[1])) if isinstance(size, list) else size


def _said(content: Mapping[str, Any]) -> Identity:
    """What a description of ours says."""
    size = stored_size(content.get("image_size"))
    shrink = content.get("image_shrink", "area")
    return Identity.of(*network_from_dict(content), size, shrink)


def _from_transformers(config: Mapping[str, Any], folder: Path) -> Identity:
    dim = config.get("reassemble_hidden_size")
    size = next((s for s, p in PRESETS.items() if p.embed_dim == dim), None)
    kind: Kind = config.get("depth_estimation_type", "relative")
    max_depth = float(config["max_depth"]) if kind == "metric" else None
    backbone = config.get("backbone_config") or {}
    taps = tuple(number - 1 for number in backbone.get("out_indices") or ())
    version: Version | None = None
    if size is not None:
        versions: tuple[Version, Version] = ("v1", "v2")
        same = (v for v in versions if PRESETS[size].taps(v) == taps)
        version = next(same, None)
    notes = config.get(KEY) or {}
    return Identity(
        size,
        version,
        kind,
        max_depth,
        _size_of_ours(config, folder),
        notes.get("canonical_focal_px"),
        image_shrink=notes.get("image_shrink", "area"),
    )


def _size_of_ours(config: Mapping[str, Any], folder: Path) -> InputSize | None:
    """The size that our exports have; others' folders keep the shape of pictures."""
    notes = config.get(KEY)
    if notes is None:
        return None
    if "image_size" in notes:
        return stored_size(notes["image_size"])
    # Exports up to November 2026 have it in the processor's file alone.
    if not (folder / PREPROCESSOR_FILE).is_file():
        return None
    processor = read_json(folder / PREPROCESSOR_FILE, NetworkError)
    rows, cols = processor["size"]["height"], processor["size"]["width"]
    return rows if rows == cols and processor["keep_aspect_ratio"] else (rows, cols)


def _of_version_3(official: re.Match[str]) -> Identity:
    spec = depth_anything_3.spec_of(official)
    return Identity.of(DepthNetwork, spec, spec.design.image_size)


def _from_name(found: re.Match[str]) -> Identity:
    if found["v1"]:
        return Identity(cast(Size, found["v1"].upper()), "v1", "relative")
    size, domain = cast(Size, found["v2"].upper()), found["domain"]
    if domain is None:
        return Identity(size, "v2", "relative")
    return Identity(size, "v2", "metric", OFFICIAL_MAX_DEPTH[domain])
