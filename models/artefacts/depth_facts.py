"""What a model card says of a depth network."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.artefacts import FORMS, form_named
from models.artefacts.base import Base
from models.artefacts.descriptions import readable
from models.artefacts.facts import Facts, Result
from models.artefacts.files import KEY, read_json
from models.artefacts.published import depth_anything_3
from models.artefacts.published.identity import (
    CONFIG_FILE,
    FORMAT,
    OFFICIAL,
    WEIGHTS_FILE,
)
from models.artefacts.published.sources import PACKAGED_NAMES, SOURCES, timm_licence
from models.metrics import METRICS
from models.networks.interface import DepthPredictor, OutputSpec, camera_of
from models.networks.presets import NetworkError, NetworkSpec
from models.networks.timm_network import TimmSpec

if TYPE_CHECKING:
    from models.artefacts.depth_record import DepthRecord

DATASETS = {
    "nyu_eigen": ("nyu_depth_v2", "NYU Depth v2"),
    "kitti_eigen_garg_kb": ("kitti", "KITTI, Eigen's split"),
    "kitti_eigen_garg_full": ("kitti", "KITTI, Eigen's split"),
    "kitti_da2": ("kitti", "KITTI, Eigen's split"),
}

SAID = ("base", "base_licence", "licence", "adapter", "scores", "focals_px")
"""Entries by which a whole network says where it is from; `licence` is the packaged
ones' own."""


def depth_facts(record: "DepthRecord") -> Facts:
    """Of a network that was trained here."""
    spec = record.network
    size = {"input in training": f"{list(record.image_size)} (rows, columns)"}
    words = f"{network_words(spec)}, adapted to {_output_words(spec)}"
    return _facts(spec, record.base.weights, words, size)


@dataclass(frozen=True)
class Origin:
    """Where a depth network without a record is from: a file's word for it, or none."""

    network: OutputSpec
    family: type[DepthPredictor]
    source: str
    """What the user called it."""
    said: Mapping[str, Any]
    """From `said_in`: empty of weights of others."""

    def licence(self) -> str | None:
        """Of the weights, or of those that they were trained from; None if unknown."""
        own: str | None = getattr(self.family, "licence", None)
        return own or _licence_said(self.said) or licence_of_weights(self.source)

    def facts(self) -> Facts:
        """What a model card says."""
        known = self.source in (*PACKAGED_NAMES, *SOURCES)
        base = self.said.get("base", {"weights": self.source if known else None})
        done = "adapted to" if "adapter" in self.said else "which predicts"
        words = f"{network_words(self.network)}, {done} {_output_words(self.network)}"
        return _facts(self.network, base["weights"], words, {})

    def to_dict(self) -> dict[str, Any]:
        """The same entries of `Record.to_dict`, as far as they are known."""
        return dict(self.said)


def said_in(path: Path) -> dict[str, Any]:
    """What a merged or `transformers` folder of ours says of where it is from.

    Raises:
        UserError: If its `config.json` is damaged.
    """
    folder = path.parent if path.name == WEIGHTS_FILE else path
    if not (config := folder / CONFIG_FILE).is_file():
        return {}
    content = read_json(config, NetworkError)
    found = content if content.get("format") == FORMAT else content.get(KEY) or {}
    with readable(config):
        said = {key: found[key] for key in SAID if key in found}
        if "base" in said:
            Base(**said["base"])
        if said.get("adapter") is not None:
            said["adapter"]["method"]
    return said


def _facts(
    spec: OutputSpec, base: str | None, words: str, more: Mapping[str, str]
) -> Facts:
    source, focal_px = SOURCES.get(base or ""), camera_of(spec)
    named = source.repo_id if source else base
    unit = "metres" if spec.kind == "metric" else "relative, without a unit"
    camera = {}
    if focal_px is not None:
        unit = f"depth * focal_px / {focal_px:g} is metres; focal_px: of the input"
        camera["canonical focal length"] = (
            f"{focal_px:g} px: metres are its numbers times the focal length of the "
            f"network's input, in pixels, divided by {focal_px:g}"
        )
    return Facts(
        task="depth-estimation",
        tags=("depth-estimation", f"{spec.kind}-depth", "lava-depth"),
        words=words,
        base=named,
        base_id=named if source or timm_licence(base or "") else None,
        forms=FORMS,
        shown=_shown,
        more={**more, **camera},
        usage={n: form_named(n).usage.replace("{unit}", unit) for n in FORMS},
    )


def _shown(result: dict[str, Any]) -> Result | None:
    if result.get("align") != "none":
        return None
    flip = result["flip_tta"]
    how = ", averaged with the mirrored image" if flip else ""
    protocol = result["protocol"]
    dataset = (*DATASETS.get(protocol, ("rgb-d", "own frames")), protocol)
    known = {name: v for name, v in result["metrics"].items() if name in METRICS}
    return Result(
        f"Protocol `{protocol}`, {result['n_images']} images{how}",
        known,
        None if flip else dataset,
    )


def network_words(spec: OutputSpec) -> str:
    """What kind of network this is, for a sentence."""
    if isinstance(spec, NetworkSpec):
        return f"Depth Anything {spec.version}, size {spec.size}"
    if isinstance(spec, TimmSpec):
        return f"timm's {spec.model} under a DPT head"
    return f"A network of {type(spec).__name__}"


def _output_words(spec: OutputSpec) -> str:
    if spec.kind == "metric":
        return f"metric depth up to {spec.max_depth:g} m"
    return "relative depth"


def licence_of_weights(weights: str) -> str | None:
    """The licence of depth weights, None where it is not known.

    Args:
        weights: A published name or file, or a folder of ours, which says what it is
            from.
    """
    return _licence_said(said_in(Path(weights).expanduser())) or _published(weights)


def _licence_said(said: Mapping[str, Any]) -> str | None:
    base = said.get("base", {}).get("weights")
    told = said.get("base_licence", said.get("licence"))
    return str(told) if told else _published(base) if base else None


def _published(weights: str) -> str | None:
    if weights in PACKAGED_NAMES:
        return "apache-2.0"
    if weights in SOURCES:
        return SOURCES[weights].licence
    if licence := timm_licence(weights):
        return licence
    # Only the official files: of a network with the same shapes nothing follows.
    if depth_anything_3.OFFICIAL.search(Path(weights).name):
        return "apache-2.0"
    found = OFFICIAL.search(Path(weights).name)
    if found is None:
        return None
    if found["v1"]:
        return "apache-2.0"
    # Depth Anything V2 README: Small is Apache-2.0, the larger ones CC-BY-NC-4.0. The
    # metric Small files come without a statement.
    if found["v2"] != "s":
        return "cc-by-nc-4.0"
    return None if found["domain"] else "apache-2.0"
