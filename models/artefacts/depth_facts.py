"""What a model card says of a depth network."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.artefacts import FORMS
from models.artefacts.facts import Facts, Result
from models.artefacts.published import depth_anything_3
from models.artefacts.published.identity import OFFICIAL
from models.artefacts.published.sources import PACKAGED_NAMES, SOURCES, timm_licence
from models.metrics import METRICS
from models.networks.interface import OutputSpec
from models.networks.presets import NetworkSpec
from models.networks.timm_network import TimmSpec

if TYPE_CHECKING:
    from models.artefacts.depth_record import DepthRecord

DATASETS = {
    "nyu_eigen": ("nyu_depth_v2", "NYU Depth v2"),
    "kitti_eigen_garg_kb": ("kitti", "KITTI, Eigen's split"),
    "kitti_eigen_garg_full": ("kitti", "KITTI, Eigen's split"),
    "kitti_da2": ("kitti", "KITTI, Eigen's split"),
}


def depth_facts(record: "DepthRecord | None") -> Facts:
    """Of a network that was trained here, or of weights of others."""
    base = None if record is None else record.base.weights
    source = SOURCES.get(base or "")
    spec = None if record is None else record.network
    max_depth = "?" if spec is None else spec.max_depth
    size = "?" if record is None else list(record.image_size)
    return Facts(
        task="depth-estimation",
        tags=("depth-estimation", "metric-depth", "lava-depth"),
        words=f"{network_words(spec)}, adapted to metric depth up to {max_depth} m",
        base=source.repo_id if source else base,
        base_id=source.repo_id
        if source
        else base
        if timm_licence(base or "")
        else None,
        forms=FORMS,
        shown=_shown,
        more={"input in training": f"{size} (rows, columns)"},
    )


def _shown(result: dict[str, Any]) -> Result | None:
    if result["align"] != "none":
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


def network_words(spec: OutputSpec | None) -> str:
    """What kind of network this is, for a sentence."""
    if isinstance(spec, NetworkSpec):
        return f"Depth Anything {spec.version}, size {spec.size}"
    if isinstance(spec, TimmSpec):
        return f"timm's {spec.model} under a DPT head"
    return "A depth network" if spec is None else f"A network of {type(spec).__name__}"


def licence_of_weights(weights: str) -> str | None:
    """The licence of published depth weights, None where it is not known."""
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
