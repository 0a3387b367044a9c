"""Read weights of every form that people have them in, strictly."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from models.artefacts.files import (
    KEY,
    misfits,
    not_finite,
    read_tensors,
    read_torch,
    shapes_of,
)
from models.artefacts.published.identity import (
    ADAPTER_FILES,
    ONNX_FILE,
    identify,
    merge_first,
)
from models.artefacts.published.sources import locate
from models.artefacts.published.transformers_keys import from_transformers
from models.networks.depth_network import DepthNetwork
from models.networks.interface import Network
from models.networks.presets import Kind, NetworkError, NetworkSpec, Size, Version

WEIGHTS_FILE = "model.safetensors"
MAY_LACK = "mask_token"
"""timm's files have no such tensor, and depth does not read it."""
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
    network = DepthNetwork(spec)
    load_weights(network, path)
    return network


def load_weights(
    network: Network, path: Path, part: Literal["network", "encoder"] = "network"
) -> None:
    """Fill a network, or its encoder alone, with the weights at a path, in place.

    Args:
        network: Of the size that the file is for.
        path: A file or folder; for the encoder also one of a whole network, such as
            Depth Anything's, beside official `dinov2_vit*14_pretrain.pth`.
        part: What to fill; the rest stays as it is.

    Raises:
        NetworkError: Naming each missing, unexpected or misshapen key.
    """
    state = official_keys(read_state_dict(path))
    module: nn.Module = network
    if part == "encoder":
        module, prefix = network.encoder, f"{network.encoder_name}."
        inside = {k: v for k, v in state.items() if k.startswith(prefix)}
        if inside:
            state = {key.removeprefix(prefix): v for key, v in inside.items()}
    expected = shapes_of(module.state_dict())
    needed = {
        name: shape
        for name, shape in expected.items()
        if name in state or not name.endswith(MAY_LACK)
    }
    if problems := misfits(needed, state):
        raise NetworkError(
            f"{path} does not fit this network: {'; '.join(problems)}; choose the size "
            "and kind that the file is for"
        )
    if wrong := not_finite(state):
        raise NetworkError(f"{path} holds NaN or infinite numbers in {wrong}")
    module.load_state_dict(state, strict=False)


def read_state_dict(path: Path) -> StateDict:
    """Tensors of a file or folder, without the wrappers of training scripts.

    `.pth`, `.pt`, `.bin` and `.ckpt` are read without unpickling anything but tensors.

    Raises:
        NetworkError: If there are none, or only those of an adapter.
    """
    if path.is_dir():
        path = _weights_in(path)
    if path.suffix == ".safetensors":
        return _without_prefixes(read_tensors(path, NetworkError)[0])
    state = read_torch(path, NetworkError)
    if isinstance(state, Mapping) and KEY in state:
        if state[KEY]["adapter"] is not None:
            raise merge_first(path)
        # What else the checkpoint holds is training's.
        state = state["state_dict"]
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
        return from_transformers(state)
    return state


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
    if any((folder / name).is_file() for name in (*ADAPTER_FILES, ONNX_FILE)):
        raise merge_first(folder)
    found = sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.pth"))
    if len(found) == 1:
        return found[0]
    raise NetworkError(
        f"{folder} has {len(found)} weight files and none is called {WEIGHTS_FILE}; "
        "name the file itself"
    )
