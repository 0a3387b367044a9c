"""Open whatever a user calls a model."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from models.adapters import merge
from models.adapters.state import DESCRIPTION_FILE
from models.artefacts.published.identity import Identity, identify
from models.artefacts.published.sources import locate
from models.artefacts.published.weights import load_network
from models.artefacts.record import Record, load_adapter, load_checkpoint
from models.networks import DepthNetwork, NetworkError, NetworkSpec
from models.networks.presets import Kind, Size, Version

DESCRIBED = "SIZE,VERSION,KIND[,MAX_DEPTH], such as S,v2,metric,20"


@dataclass(frozen=True)
class Opened:
    """A network and what is known of it."""

    network: DepthNetwork
    """Its adapters in place, or none."""
    record: Record | None
    """Of a network that was trained here; None for weights of others."""
    image_size: tuple[int, int] | None
    """(rows, cols) that it was trained at, if that is known."""

    def notes(self) -> dict[str, object]:
        """What a merged export should say about where it comes from."""
        if self.record is None:
            return {}
        content = self.record.to_dict()
        return {key: content[key] for key in ("base", "adapter", "scores")}


def open_model(source: str, described: str | None = None) -> Opened:
    """Load a checkpoint, an adapter folder, a merged folder, or weights of others.

    Args:
        source: A `.ckpt`, a folder, an official `.pth` or `.safetensors`, a name that
            the project knows, or a Hub id.
        described: What an official file is, where neither its `config.json` nor its
            name tells: size, version, kind and, for a metric one, max_depth in metres.

    Raises:
        CheckpointError, NetworkError: Saying what does not fit.
    """
    path = Path(source).expanduser()
    if path.suffix == ".ckpt":
        network, record = load_checkpoint(path)
        return Opened(network, record, record.image_size)
    if (path / DESCRIPTION_FILE).is_file():
        network, record = load_adapter(path)
        return Opened(network, record, record.image_size)
    located = locate(source)
    known = identify(located)
    network = load_network(located, _spec(source, known, described))
    return Opened(network, None, known.image_size)


def merged(opened: Opened) -> DepthNetwork:
    """The network with its adapters folded in, ready to predict."""
    merge(opened.network)
    return opened.network.eval()


def _spec(source: str, known: Identity, described: str | None) -> NetworkSpec:
    if described is not None:
        spec = _described(described)
        known.check(source, spec, kind=True)
        return spec
    if known.size is None or known.version is None or known.kind is None:
        raise NetworkError(
            f"{source} does not say what network it holds; give --network {DESCRIBED}"
        )
    return NetworkSpec(known.size, known.version, known.kind, known.max_depth)


def _described(text: str) -> NetworkSpec:
    parts = text.split(",")
    allowed = (get_args(Size), get_args(Version), get_args(Kind))
    fits = len(parts) in (3, 4) and all(
        part in choices for part, choices in zip(parts, allowed, strict=False)
    )
    try:
        max_depth = float(parts[3]) if len(parts) == 4 else None
    except ValueError:
        fits = False
    if not fits:
        raise NetworkError(f"--network {text!r} is not {DESCRIBED}")
    return NetworkSpec(
        cast(Size, parts[0]), cast(Version, parts[1]), cast(Kind, parts[2]), max_depth
    )
