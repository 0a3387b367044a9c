"""Where base weights come from, and under which licence."""

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
)

from models.networks.presets import NetworkError

PACKAGED = Path(__file__).parents[2] / "weights"
TINY_ROOMS = "tiny-rooms"


@dataclass(frozen=True)
class Source:
    """One published weights file."""

    repo_id: str
    filename: str
    licence: str


def _depth_anything(version: str, name: str, letter: str, licence: str) -> Source:
    repo = f"depth-anything/Depth-Anything-V2-{name}"
    if version == "v1":
        return Source(
            f"LiheYoung/depth_anything_vit{letter}14", "pytorch_model.bin", licence
        )
    return Source(repo, f"depth_anything_v2_vit{letter}.pth", licence)


SOURCES: dict[str, Source] = {
    # Licences: Depth Anything V2 README, "LICENSE"; v1 is Apache-2.0 throughout.
    "depth-anything-v2-small": _depth_anything("v2", "Small", "s", "apache-2.0"),
    "depth-anything-v2-base": _depth_anything("v2", "Base", "b", "cc-by-nc-4.0"),
    "depth-anything-v2-large": _depth_anything("v2", "Large", "l", "cc-by-nc-4.0"),
    "depth-anything-v1-small": _depth_anything("v1", "Small", "s", "apache-2.0"),
    "depth-anything-v1-base": _depth_anything("v1", "Base", "b", "apache-2.0"),
    "depth-anything-v1-large": _depth_anything("v1", "Large", "l", "apache-2.0"),
    "dinov2-small": Source(
        "timm/vit_small_patch14_dinov2.lvd142m", "model.safetensors", "apache-2.0"
    ),
    "dinov2-base": Source(
        "timm/vit_base_patch14_dinov2.lvd142m", "model.safetensors", "apache-2.0"
    ),
    "dinov2-large": Source(
        "timm/vit_large_patch14_dinov2.lvd142m", "model.safetensors", "apache-2.0"
    ),
}


def locate(source: str) -> Path:
    """Turn what a user calls a base into a local file or folder.

    Args:
        source: A path, `tiny-rooms` (packaged), a name in `SOURCES`, or the Hub id of
            a repository with a `model.safetensors`.

    Raises:
        NetworkError: If there is no such path and the Hub has or gives no such file.
    """
    if source == TINY_ROOMS:
        return PACKAGED / "tiny_rooms"
    path = Path(source).expanduser()
    if path.exists():
        return path
    known = SOURCES.get(source)
    if known is None and (source.count("/") != 1 or path.suffix or source[0] in "./~"):
        names = ", ".join([TINY_ROOMS, *SOURCES])
        raise NetworkError(
            f"weights {source!r}: there is no such file or folder; give a path, a Hub "
            f"id (owner/name), or one of {names}"
        )
    wanted = known or Source(source, "model.safetensors", "see its model card")
    try:
        path = Path(hf_hub_download(wanted.repo_id, wanted.filename))
        if known is None and _has_config(wanted.repo_id):
            # Beside its config.json the file says what it is.
            return path.parent
        return path
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise NetworkError(
            f"weights {source!r} could not be had from the Hub "
            f"({type(error).__name__}); download {wanted.filename} of "
            f"{wanted.repo_id} (licence {wanted.licence}) by other means and give its "
            "path instead"
        ) from None


def _has_config(repo_id: str) -> bool:
    try:
        hf_hub_download(repo_id, "config.json")
    except EntryNotFoundError:
        return False
    return True
