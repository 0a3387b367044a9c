"""What weights say about themselves, so that a wrong pairing can be refused.

v1 and v2, relative and metric files have the same keys and shapes. Three things tell:
`config.json` of a merged folder of ours, that of a `transformers` folder, and the names
under which the official files were published.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from models.networks.presets import (
    PRESETS,
    Kind,
    NetworkError,
    NetworkSpec,
    Size,
    Version,
)

CONFIG_FILE = "config.json"
FORMAT = "lava-depth"
OFFICIAL = re.compile(
    r"depth_anything_v2_(?:metric_(?P<domain>hypersim|vkitti)_)?vit(?P<v2>[sblg])\b"
    r"|depth_anything_vit(?P<v1>[sbl])14\b"
)
OFFICIAL_MAX_DEPTH = {"hypersim": 20.0, "vkitti": 80.0}


@dataclass(frozen=True)
class Identity:
    """What is known of a file; None where nothing tells."""

    size: Size | None = None
    version: Version | None = None
    kind: Kind | None = None
    max_depth: float | None = None
    image_size: tuple[int, int] | None = None
    """(rows, cols) that it was trained at."""

    def check(self, source: str, spec: NetworkSpec, *, kind: bool) -> None:
        """Refuse a network that these weights are not for.

        Args:
            source: For the message.
            spec: What was asked for.
            kind: Whether relative weights may not become a metric network, or the
                other way round.
        """
        for name in ("size", "version", *(("kind",) if kind else ())):
            own, asked = getattr(self, name), getattr(spec, name)
            if own is not None and own != asked:
                raise NetworkError(
                    f"{source} holds a network of {name} {own!r}, not {asked!r}; ask "
                    "for that one"
                )


def identify(path: Path) -> Identity:
    """What a weights file or folder says about its network.

    Raises:
        NetworkError: If its `config.json` is damaged or of another kind of network.
    """
    config = path / CONFIG_FILE
    if config.is_file():
        try:
            content = json.loads(config.read_text())
        except ValueError:
            raise NetworkError(
                f"{config} is not valid JSON; write the folder again"
            ) from None
        if content.get("format") == FORMAT:
            spec = NetworkSpec(**content["network"])
            size = content.get("image_size")
            return Identity(
                spec.size,
                spec.version,
                spec.kind,
                spec.max_depth,
                None if size is None else (size[0], size[1]),
            )
        if content.get("model_type") == "depth_anything":
            return _from_transformers(content)
    # The Hub's cache keeps the repository's name in a folder's.
    cached = [part for part in path.parts if part.startswith("models--")]
    for name in (path.name, *cached):
        if found := OFFICIAL.search(name):
            return _from_name(found)
    return Identity()


def _from_transformers(config: dict[str, Any]) -> Identity:
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
    return Identity(size, version, kind, max_depth)


def _from_name(found: re.Match[str]) -> Identity:
    if found["v1"]:
        return Identity(cast(Size, found["v1"].upper()), "v1", "relative")
    size, domain = cast(Size, found["v2"].upper()), found["domain"]
    if domain is None:
        return Identity(size, "v2", "relative")
    return Identity(size, "v2", "metric", OFFICIAL_MAX_DEPTH[domain])
