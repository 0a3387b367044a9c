"""What a form on disk is: how it is written, opened, checked, and used by others."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError
from torch import Tensor

from datamodules.batch import ImageInput
from datamodules.files.whole import whole_folder
from datamodules.sizes import InputSize, Shrink, fixed
from models.adapters import merge
from models.artefacts.base import fingerprint
from models.artefacts.depth_record import DepthRecord
from models.errors import ExportError
from models.networks.interface import DepthPredictor, Network

Reopened = Callable[[Tensor], Tensor]
"""What was written, loaded again: images (B, 3, H, W) to depth (B, 1, H, W)."""


@dataclass(frozen=True)
class Asked:
    """What a user says about a file that does not say it itself."""

    network: str | None = None
    """SIZE,VERSION,KIND[,MAX_DEPTH] of official weights under another name."""
    base: str | None = None
    """The base of a PEFT folder."""


@dataclass(frozen=True)
class ExportOptions:
    """How to write a form."""

    image_size: InputSize
    """That predictions will be made at, and that is written."""
    half: bool = False
    """float16, where a form has it."""
    base_model: str | None = None
    """Hub id or folder of the `transformers` base, for PEFT."""


@dataclass(frozen=True)
class Opened:
    """A network and what is known of it."""

    network: DepthPredictor
    """Its adapters in place, or none."""
    record: DepthRecord | None
    """Of a network that was trained here; None for weights of others."""
    image_size: InputSize | None
    """That it was trained at, (rows, cols), or is used at; None where nothing tells."""
    source: str
    """What the user called it."""
    image_shrink: Shrink = "area"
    """How larger pictures are brought to its input, where no record says it."""

    @property
    def image_input(self) -> ImageInput:
        """What the network reads."""
        record = self.record
        shrink = self.image_shrink if record is None else record.image_shrink
        return ImageInput.of(self.network, shrink)

    @property
    def adapted(self) -> Network:
        """The network, where it is one and not an ONNX program.

        Raises:
            ExportError: If it can only predict.
        """
        if not isinstance(self.network, Network):
            raise ExportError(
                f"{self.source} is an ONNX program, which can only predict; give the "
                "checkpoint or folder that it was exported from"
            )
        return self.network

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all its weights: equal for equal predictions."""
        return fingerprint(self.network)

    def merged(self) -> DepthPredictor:
        """The network with its adapters folded in, in place, ready to predict."""
        merge(self.network)
        return self.network.eval()

    def notes(self) -> dict[str, object]:
        """What a merged export should say of how it is used and where it comes from."""
        content = {} if self.record is None else self.record.to_dict()
        wanted = ("base", "adapter", "scores", "focals_px")
        found = {key: content[key] for key in wanted if key in content}
        return {"image_shrink": self.image_input.shrink, **found}


class Form(ABC):
    """One form on disk of a trained network."""

    name: ClassVar[str]
    """On the command line."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Packages beyond those of the project."""
    tolerance: ClassVar[float]
    """Largest |a - b| / |a| between the network and what was written, over `probes`."""
    folds_in: ClassVar[bool] = True
    """Whether adapters are folded into the weights first."""
    library: ClassVar[str]
    """The Hub's name of what opens it."""
    language: ClassVar[str] = "python"
    usage: ClassVar[str]
    """How others use it; `{repo}` is the repository's name."""

    @abstractmethod
    def recognises(self, path: Path) -> bool:
        """Whether a file or folder is of this form."""

    @abstractmethod
    def open(self, path: Path, asked: Asked) -> Opened:
        """Open it as this project does.

        Raises:
            UserError: Saying what does not fit.
        """

    @abstractmethod
    def write(self, opened: Opened, folder: Path, options: ExportOptions) -> None:
        """Write all files of the form into an empty folder.

        Raises:
            ExportError: If the form cannot hold this network.
        """

    def reopened(self, folder: Path) -> Reopened:
        """What was written, opened as those do who use it."""
        network: Reopened = self.open(folder, Asked()).network.eval()
        return network

    def allowed(self, options: ExportOptions) -> float:
        """The tolerance under these options."""
        return self.tolerance

    def probes(self, opened: Opened, size: InputSize) -> list[Tensor]:
        """Images to compare on, the same at every call."""
        patch_px = opened.network.patch_px
        small = (5 * patch_px, 7 * patch_px)
        return [smooth(1, fixed(size, patch_px)), smooth(3, small)]


def save(form: Form, opened: Opened, folder: Path, options: ExportOptions) -> float:
    """Write a network in a form, reopen it, compare, and only then keep it.

    Args:
        form: Which.
        opened: Its adapters are folded in, in place, where the form wants it so.
        folder: Must not exist, or be empty. It appears whole or not at all.
        options: How.

    Returns:
        The largest relative difference on the probe images.

    Raises:
        ExportError: If a package is missing, the folder is taken, the form cannot hold
            the network, or the difference is above the form's tolerance.
    """
    missing = [name for name in form.needs if find_spec(name) is None]
    if missing:
        raise ExportError(
            f"the {form.name} export needs {', '.join(missing)}; "
            "pip install -e '.[export]'"
        )
    if options.half and form.allowed(options) == form.tolerance:
        raise ExportError("half precision is an option of the onnx export alone")
    check_free(folder)
    network = opened.adapted.eval()
    if form.folds_in:
        opened.merged()
    with whole_folder(folder) as new:
        try:
            form.write(opened, new, options)
        except SafetensorError as error:
            # Its writer has no OSError for a full disk.
            raise ExportError(f"{folder} cannot be written ({error})") from None
        reopened, worst = form.reopened(new), 0.0
        for probe in form.probes(opened, options.image_size):
            worst = max(worst, difference(network, reopened, probe))
        allowed = form.allowed(options)
        if not worst <= allowed:
            raise ExportError(
                f"the {form.name} export differs from the network by {worst:.1e} "
                f"(relative), where {allowed:.0e} is allowed; it was not kept"
            )
    return worst


def check_free(folder: Path) -> None:
    """Refuse a folder that has something in it.

    Raises:
        ExportError: Naming it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "not empty" if folder.is_dir() else "no folder"
        raise ExportError(f"{folder} exists and is {what}; give another folder")


def smooth(batch: int, size: tuple[int, int]) -> Tensor:
    """Images (batch, 3, rows, cols) without hard edges, the same at every call."""
    generator = torch.Generator().manual_seed(batch)
    coarse = torch.randn(batch, 3, 6, 8, generator=generator)
    return torch.nn.functional.interpolate(coarse, size, mode="bicubic")


@torch.no_grad()
def difference(network: DepthPredictor, reopened: Reopened, image: Tensor) -> float:
    """Largest |a - b| / |a| between the two on one batch of images.

    |a| is at least a thousandth of its mean: disparity may be 0.
    """
    expected, found = network(image), reopened(image)
    scale = expected.abs().clamp(min=1e-3 * expected.abs().mean().item())
    worst: float = ((found - expected).abs() / scale).max().item()
    return worst
