"""Where base weights come from, and under which licence."""

import re
from dataclasses import dataclass
from pathlib import Path

from models.networks.presets import NetworkError

PACKAGED = Path(__file__).parents[2] / "weights"
PACKAGED_NAMES = {"tiny-rooms": "tiny_rooms", "tiny-worlds": "tiny_worlds"}
"""Networks of our own, which need no download, and their folders."""
SNAPSHOT = re.compile(r"/models--[^/]+/snapshots/([0-9a-f]{40})(/|$)")
"""Of huggingface_hub's cache (docs: "Understand caching")."""


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
    # Depth Anything 3 README, "Model Cards".
    "da3mono-large": Source(
        "depth-anything/DA3MONO-LARGE", "model.safetensors", "apache-2.0"
    ),
    "da3metric-large": Source(
        "depth-anything/DA3METRIC-LARGE", "model.safetensors", "apache-2.0"
    ),
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
for _name in ("small", "small_plus", "base", "large"):
    SOURCES[f"dinov3-{_name.replace('_', '-')}"] = Source(
        f"timm/vit_{_name}_patch16_dinov3.lvd1689m",
        "model.safetensors",
        "dinov3-license",
    )
OTHER_LICENCES = {
    "dinov3-license": "https://ai.meta.com/resources/models-and-libraries/dinov3-license"
}
"""Licences that the Hub has no word for, each with its text. What is made from weights
under them stays under them."""


ON_THE_HUB = (
    *("config.json", "preprocessor_config.json", "model.safetensors", "model.onnx"),
    *("model-*.safetensors", "model.safetensors.index.json", "generation_config.json"),
    *("tokenizer*", "special_tokens_map.json"),
    *("adapter.json", "adapter.safetensors"),
    *("adapter_config.json", "adapter_model.safetensors"),
)
"""Files of a repository that any form of ours, or of `transformers` or PEFT, has."""


def check_source(source: str) -> None:
    """Refuse what can be neither a file nor a name, before anything is loaded.

    Raises:
        NetworkError: Listing what a model may be called.
    """
    if source in (*PACKAGED_NAMES, *SOURCES) or Path(source).expanduser().exists():
        return
    repo = repo_and_revision(source)[0]
    if repo.count("/") != 1 or Path(repo).suffix or source[:1] in ("", *"./~"):
        names = ", ".join([*PACKAGED_NAMES, *SOURCES])
        raise NetworkError(
            f"weights {source!r}: there is no such file or folder; give a path, a Hub "
            f"id (owner/name, or owner/name@revision), or one of {names}"
        )


def locate(source: str) -> Path:
    """Turn what a user calls a model into a local file or folder.

    Args:
        source: A path, `tiny-rooms` or `tiny-worlds` (packaged), a name in `SOURCES`,
            or the Hub id of a repository, with `@` and a branch, tag or commit if not
            its newest.

    Raises:
        NetworkError: If there is no such path and the Hub has or gives no such file.
    """
    check_source(source)
    if source in PACKAGED_NAMES:
        return PACKAGED / PACKAGED_NAMES[source]
    path = Path(source).expanduser()
    if path.exists():
        return path
    # Half a second of import, for who needs the Hub.
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    known = SOURCES.get(source)
    repo, revision = repo_and_revision(source)
    wanted = known or Source(repo, "model.safetensors", "see its model card")
    try:
        if known is not None:
            return Path(hf_hub_download(known.repo_id, known.filename))
        folder = Path(
            snapshot_download(repo, revision=revision, allow_patterns=list(ON_THE_HUB))
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise NetworkError(
            f"weights {source!r} could not be had from the Hub "
            f"({type(error).__name__}); download {wanted.filename} of "
            f"{wanted.repo_id} (licence {wanted.licence}) by other means and give its "
            "path instead"
        ) from None
    if not any(folder.iterdir()):
        raise NetworkError(
            f"{source} on the Hub has none of {', '.join(ON_THE_HUB)}; give another "
            "repository, or download its weights and give their path"
        )
    return folder


def timm_repository(model: str) -> str:
    """The Hub's repository of the weights that timm publishes for a model.

    Raises:
        NetworkError: If it publishes none.
    """
    import timm

    config = timm.models.get_pretrained_cfg(model)
    if config is None or not config.hf_hub_id:
        raise NetworkError(
            f"timm publishes no weights for {model}; give --model.weights PATH"
        )
    return str(config.hf_hub_id)


def timm_licence(repository: str) -> str | None:
    """The licence of weights that timm publishes; None where it is not known."""
    import timm

    owner, _, model = repo_and_revision(repository)[0].partition("/")
    if owner != "timm" or not timm.is_model(model):
        return None
    try:
        config = timm.models.get_pretrained_cfg(model)
    except RuntimeError:
        return None  # a tag that it does not have
    return None if config is None else config.license


def commit_of(path: Path) -> str | None:
    """The commit of the Hub's repository that a located file is of; None of others."""
    found = SNAPSHOT.search(path.as_posix())
    return found[1] if found else None


def repo_and_revision(source: str) -> tuple[str, str | None]:
    """Name and revision of what may be a Hub id, `owner/name[@revision]`."""
    repo, _, revision = source.partition("@")
    return repo, revision or None
