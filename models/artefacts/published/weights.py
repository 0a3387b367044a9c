"""Read weights of every official form, strictly, and write our own merged folder."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.artefacts.published.identity import CONFIG_FILE, FORMAT, identify
from models.artefacts.published.sources import locate
from models.networks.depth_network import DepthNetwork
from models.networks.presets import Kind, NetworkError, NetworkSpec, Size, Version

WEIGHTS_FILE = "model.safetensors"
StateDict = dict[str, Tensor]


def load_depth_anything(
    source: str | Path,
    *,
    size: Size = "S",
    version: Version = "v2",
    kind: Kind = "relative",
    max_depth: float | None = None,
) -> DepthNetwork:
    """Load Depth Anything weights from a file, a folder or the Hub.

    Args:
        source: An official `.pth` or `.safetensors` (plain, or wrapped by a training
            script), a `transformers` folder, a merged folder of ours, or a Hub id.
        size: Which network the file is for; its shapes are checked.
        version: v1 and v2 files have the same keys and differ in meaning. Checked
            against `config.json` or the official file's name; a renamed file without
            either loads as whatever is asked for.
        kind: Relative and metric files look alike, too, and are checked likewise.
        max_depth: Metres; what a metric network was trained with. Another value
            rescales its output.

    Returns:
        The network; `forward(image)` gives (B, 1, H, W).

    Raises:
        NetworkError: Naming each missing, unexpected or misshapen key.
    """
    spec = NetworkSpec(size, version, kind, max_depth)
    path = locate(str(source))
    identify(path).check(str(path), spec, kind=True)
    return load_network(path, spec)


def load_network(path: Path, spec: NetworkSpec) -> DepthNetwork:
    """A network of `spec` with the weights at `path`, whatever they predicted before.

    A relative base may so become a metric network, whose last convolution the caller
    starts anew (`DepthNetwork.start_at_depth`).
    """
    identify(path).check(str(path), spec, kind=False)
    network = DepthNetwork(spec)
    _load_strictly(network, official_keys(read_state_dict(path)), path)
    return network


def load_dinov2(network: DepthNetwork, source: str | Path) -> None:
    """Load DINOv2 weights into a network's encoder, in place; the head stays new.

    Args:
        network: Of the size that the file is for.
        source: Official `dinov2_vit*14_pretrain.pth`, a file with Depth Anything's
            names (`pretrained.*`), or a Hub id.
    """
    path = locate(str(source))
    state = official_keys(read_state_dict(path))
    prefix = "pretrained."
    if any(key.startswith(prefix) for key in state):
        state = {
            key.removeprefix(prefix): value
            for key, value in state.items()
            if key.startswith(prefix)
        }
    _load_strictly(network.pretrained, state, path)


def read_state_dict(path: Path) -> StateDict:
    """Tensors of a file or folder, without the wrappers of training scripts.

    `.pth`, `.pt`, `.bin` and `.ckpt` are read without unpickling anything but tensors.
    """
    if path.is_dir():
        path = _weights_in(path)
    try:
        if path.suffix == ".safetensors":
            state: object = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise NetworkError(
            f"{path} cannot be read as weights ({_first_line(error)}); it may be cut "
            "off or no weights file: download it again"
        ) from None
    except Exception as error:
        # torch raises pickle.UnpicklingError for anything but plain tensors.
        raise NetworkError(
            f"{path} holds more than tensors ({_first_line(error)}); unpickling it "
            "could run any code, so it is refused: convert it to safetensors"
        ) from None
    for wrapper in ("model", "state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not all(
        isinstance(value, Tensor) for value in state.values()
    ):
        raise NetworkError(f"{path} holds no state dict of tensors")
    return _without_prefixes({str(key): value for key, value in state.items()})


def official_keys(state: StateDict) -> StateDict:
    """Rename `transformers` keys to the official ones, if they are such."""
    if any(key.startswith("backbone.") for key in state):
        from models.artefacts.published.transformers_keys import from_transformers

        return from_transformers(state)
    return state


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of a module's state dict.

    Equal for equal weights in whatever file they came.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        flat = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {flat.dtype} {tuple(flat.shape)}\n".encode())
        digest.update(flat.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_network(
    network: DepthNetwork, folder: Path, notes: Mapping[str, object] | None = None
) -> None:
    """Write `config.json` and `model.safetensors` with official keys.

    Args:
        network: A network without adapters.
        folder: Made if missing. Both files appear whole or not at all.
        notes: More entries for `config.json`, such as metrics.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    config = {
        "format": FORMAT,
        "format_version": 1,
        "network": asdict(network.spec),
        "sha256": fingerprint(network),
        **(notes or {}),
    }
    weights = folder / f".{WEIGHTS_FILE}.part"
    save_file(state, weights, metadata={"format": "pt"})
    text = folder / f".{CONFIG_FILE}.part"
    text.write_text(json.dumps(config, indent=2) + "\n")
    weights.replace(folder / WEIGHTS_FILE)
    text.replace(folder / CONFIG_FILE)


def _load_strictly(module: nn.Module, state: StateDict, path: Path) -> None:
    expected = module.state_dict()
    missing = sorted(
        expected.keys() - state.keys() - {"mask_token", "pretrained.mask_token"}
    )
    unexpected = sorted(state.keys() - expected.keys())
    shapes = [
        f"{key} is {tuple(state[key].shape)} in the file, {tuple(value.shape)} here"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    if shapes:
        raise NetworkError(
            f"{path} is for another size of network: {_some(shapes)}; choose the size "
            "that the file is for"
        )
    if missing or unexpected:
        raise NetworkError(
            f"{path} does not fit: missing {_some(missing)}; unexpected "
            f"{_some(unexpected)}"
        )
    # timm has no mask token and depth does not read it: it may be absent.
    module.load_state_dict(state, strict=False)


def _without_prefixes(state: StateDict) -> StateDict:
    """Drop `module.` and `model.` where wrappers put them before every key."""
    while state:
        prefix = next(
            (
                prefix
                for prefix in ("module.", "model.", "network.")
                if all(key.startswith(prefix) for key in state)
            ),
            None,
        )
        if prefix is None:
            return state
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _weights_in(folder: Path) -> Path:
    for name in (WEIGHTS_FILE, "pytorch_model.bin"):
        if (folder / name).is_file():
            return folder / name
    found = sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.pth"))
    if len(found) == 1:
        return found[0]
    raise NetworkError(
        f"{folder} has {len(found)} weight files and none is called {WEIGHTS_FILE}; "
        "name the file itself"
    )


def _some(names: list[str]) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def _first_line(error: Exception) -> str:
    text = re.split(r"[\n.]", str(error).strip())[0]
    return text or type(error).__name__
