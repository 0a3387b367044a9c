"""Read weights of every form that people have them in, strictly."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from torch import nn

from models.artefacts.files import (
    KEY,
    not_finite,
    read_tensors,
    read_torch,
    shapes_of,
)
from models.artefacts.published import depth_anything_3, dinov3_names
from models.artefacts.published.identity import (
    ADAPTER_FILES,
    ONNX_FILE,
    WEIGHTS_FILE,
    identify,
    merge_first,
)
from models.artefacts.published.nesting import (
    Found,
    StateDict,
    Wanted,
    best_fit,
    tensors_in,
)
from models.artefacts.published.sources import locate
from models.artefacts.published.transformers_keys import (
    from_transformers,
    transformers_names,
)
from models.networks.depth_network import DepthNetwork
from models.networks.interface import Network
from models.networks.presets import Kind, NetworkError, NetworkSpec, Size, Version


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
    known = identify(path)
    known.check(str(path), spec, kind=True)
    network = DepthNetwork(replace(spec, canonical_focal_px=known.canonical_focal_px))
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
    module: nn.Module = network if part == "network" else network.encoder
    inside = "" if part == "network" else f"{network.encoder_name}."
    wanted = wanted_by(module, inside)
    if part == "encoder":
        own = wanted.renamed
        wanted = replace(wanted, renamed=lambda s: network.from_published(own(s)))
    state = read_state_dict(path, wanted)
    if problems := wanted.problems(state):
        raise NetworkError(
            f"{path} does not fit this network: {'; '.join(problems)}; choose the size "
            "and kind that the file is for"
        )
    if wrong := not_finite(state):
        raise NetworkError(f"{path} holds NaN or infinite numbers in {wrong}")
    module.load_state_dict(state, strict=False)


def read_state_dict(path: Path, wanted: Wanted | None = None) -> StateDict:
    """Tensors of a file or folder, without the wrappers of training scripts.

    `.pth`, `.pt`, `.bin` and `.ckpt` are read without unpickling anything but tensors.

    Args:
        path: The file or folder.
        wanted: What is looked for, which comes out by its own names. Without it, the
            largest state dict is taken as it is.

    Raises:
        NetworkError: If there are none, only those of an adapter, or those of a network
            that is not built here.
    """
    content = _content(path)
    found = list(tensors_in(content))
    if wanted is not None:
        best, whole = best_fit(found, wanted)
        if not whole:
            check_built(path, found, wanted)
        if best is not None:
            if len(whole) > 1:
                places = ", ".join(
                    repr(f.where) if f.where else "no key" for f in whole
                )
                average = " (the average of training's steps)" if best.average else ""
                warnings.warn(
                    f"{path} holds the network {len(whole)} times, under {places}; "
                    f"that of {best.where or 'no key'}{average} is taken",
                    stacklevel=2,
                )
            return best.state
    if not found:
        raise NetworkError(f"{path} holds no state dict of tensors")
    return max(found, key=lambda f: len(f.state)).state


def check_built(
    path: Path, found: Sequence[Found] | None = None, wanted: Wanted | None = None
) -> None:
    """Refuse weights of Depth Anything 3 that are not built here, or not wanted.

    Args:
        path: A file or folder.
        found: Its tensors, where they are read already.
        wanted: What is looked for, if that is known.

    Raises:
        NetworkError: Naming the network, and what to give or ask for.
    """
    if found is None:
        found = list(tensors_in(_content(path)))
    names = [name for part in found for name in part.state]
    if not depth_anything_3.is_official(names):
        return
    depth_anything_3.check_monocular(str(path), names)
    if wanted is None:
        return
    head = [name for name in wanted.shapes if ".scratch." in name]
    if head and not any(".sky_output_conv2." in name for name in head):
        raise NetworkError(
            f"{path} holds a monocular Depth Anything 3 network; ask for version v3 "
            "and size L"
        )


def official_keys(state: StateDict) -> StateDict:
    """Rename others' keys to those of Depth Anything and timm, if they are such."""
    if dinov3_names.MARK in state:
        return dinov3_names.from_meta(state)
    if depth_anything_3.is_official(state):
        return depth_anything_3.from_official(state)
    if any(key.startswith("backbone.") for key in state):
        return from_transformers(state)
    return state


def wanted_by(module: nn.Module, inside: str) -> Wanted:
    """The tensors of a network, or of its part whose names begin with `inside`."""
    shapes = shapes_of(module.state_dict())
    whole = [inside + name for name in shapes]
    theirs = [
        n
        for old in (False, True)
        for w in whole
        for n in transformers_names(w, old=old)
    ]
    theirs += [depth_anything_3.official_name(name) for name in whole]

    def renamed(state: StateDict) -> StateDict:
        state = official_keys(state)
        own = {
            k.removeprefix(inside): v for k, v in state.items() if k.startswith(inside)
        }
        return own or state

    return Wanted(shapes, frozenset((*shapes, *whole, *theirs)), renamed)


def _content(path: Path) -> object:
    """What a weights file holds, nested as it is."""
    if path.is_dir():
        path = _weights_in(path)
    if path.suffix == ".safetensors":
        return read_tensors(path, NetworkError, mapped=True)[0]
    content = read_torch(path, NetworkError)
    if isinstance(content, Mapping) and KEY in content:
        if content[KEY].get("adapter", "several") is not None:
            raise merge_first(path)
        # What else the checkpoint holds is training's.
        return content["state_dict"]
    return content


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
