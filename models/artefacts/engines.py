"""Let a network be computed by another engine than torch, from its ONNX program.

The program is made once and kept in a cache (`LAVA_CACHE`, by default
`~/.cache/lava-depth`), named after the weights' SHA-256. Before it is used, once for
each version of an engine, its depth is compared with torch's at three sizes.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch

from datamodules.extras import check_installed
from datamodules.files.whole import write_json
from datamodules.sizes import InputSize, fixed
from models.artefacts import Engine
from models.artefacts.form import (
    ExportOptions,
    Opened,
    Reopened,
    largest,
    save,
    smooth,
)
from models.artefacts.onnx import FORM
from models.artefacts.programs import PACKAGES, OnnxNetwork, Runner
from models.artefacts.published.identity import ONNX_FILE
from models.errors import ExportError
from models.networks.interface import DepthPredictor

NEEDS = ("onnx", "onnxscript")
TOLERANCE = 1e-3
"""Of torch's range, the largest difference with which an engine is used: a tenth of a
unit of an 8-bit picture of it, and engines that are right differ by 1e-5."""


def with_engine(
    opened: Opened,
    engine: Engine,
    size: InputSize,
    say: Callable[[str], None] = lambda text: None,
) -> Opened:
    """The same network, computed by an engine.

    Args:
        opened: Its adapters are folded in, in place.
        engine: Which.
        size: That predictions will mostly be made at.
        say: Told of what takes a minute.

    Raises:
        ExtraError: If a package is missing.
        ExportError: If the network is one that the engine cannot have, or its depth
            differs from torch's.
    """
    given = opened.network
    if isinstance(given, OnnxNetwork):
        if engine == "torch":
            raise ExportError(
                f"{opened.source} is an ONNX program: --engine onnx or openvino runs it"
            )
        path = _folder(opened.source)
        return opened if engine == "onnx" else _with(opened, path, engine, given, size)
    if engine == "torch":
        return opened
    check_engine(engine)
    network = opened.merged()
    sha256 = opened.fingerprint
    folder = cache() / "engines" / f"{sha256}-torch-{torch.__version__}"
    if not (folder / ONNX_FILE).is_file():
        say(f"making an ONNX program of {opened.source}, once, in {folder}")
        save(FORM, replace(opened, network=network), folder, ExportOptions(size))
    found = _with(opened, folder / ONNX_FILE, engine, network, size)
    assert isinstance(found.network, OnnxNetwork)
    # Another export may have other bytes; what is predicted goes by the weights.
    found.network.sha256 = bytes.fromhex(sha256)
    return found


def check_engine(engine: Engine | None) -> None:
    """Refuse an engine that is not there.

    Raises:
        ExtraError: Saying what to install.
    """
    if engine is not None and engine != "torch":
        check_installed(f"--engine {engine}", "engines", PACKAGES[engine], *NEEDS)


def cache() -> Path:
    """Where programs are kept."""
    own = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("LAVA_CACHE", f"{own}/lava-depth")).expanduser()


def _with(
    opened: Opened, path: Path, engine: Runner, reference: Reopened, size: InputSize
) -> Opened:
    network = OnnxNetwork(path, engine)
    known = f"{engine} {version(PACKAGES[engine])} {fixed(size, network.patch_px)}"
    digest = hashlib.sha256(f"{known} {network.sha256.hex()}".encode()).hexdigest()
    checked = cache() / "engines" / f"checked-{digest[:16]}.json"
    if not checked.is_file():
        worst = _difference(network, reference, size)
        if not worst <= TOLERANCE:
            raise ExportError(
                f"--engine {engine} differs from the network by {worst:.1e} of its "
                f"range, where {TOLERANCE:.0e} is allowed; use another"
            )
        write_json(checked, {"engine": known, "difference": worst})
    return replace(opened, network=network, image_shrink=opened.image_input.shrink)


@torch.inference_mode()
def _difference(network: DepthPredictor, reference: Reopened, size: InputSize) -> float:
    """Largest |a - b| over a picture's range, of three sizes."""
    patch_px = network.patch_px
    sizes = (fixed(size, patch_px), (5 * patch_px, 7 * patch_px), (9 * patch_px,) * 2)
    each = []
    for count, probe in enumerate(sizes, 1):
        image = smooth(count if probe != sizes[0] else 1, probe)
        expected, found = reference(image), network(image)
        reach = (expected.max() - expected.min()).clamp(min=1e-3 * expected.abs().max())
        each.append(float((found - expected).abs().max() / reach))
    return largest(each)


def _folder(source: str) -> Path:
    path = Path(source).expanduser()
    return path / ONNX_FILE if path.is_dir() else path
