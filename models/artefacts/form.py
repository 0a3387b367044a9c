"""What a form on disk is: how it is written, opened, checked, and used by others."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from datamodules.extras import check_installed
from datamodules.files.whole import whole_folder
from datamodules.sizes import InputSize
from models.artefacts.opened import Opened as Opened
from models.artefacts.opened import OpenedModel as OpenedModel
from models.artefacts.opened import Reopened as Reopened
from models.artefacts.opened import smooth as smooth
from models.errors import ExportError

M = TypeVar("M", bound=OpenedModel)


@dataclass(frozen=True)
class Asked:
    """What a user says about a file that does not say it itself."""

    network: str | None = None
    """SIZE,VERSION,KIND[,MAX_DEPTH] of official weights under another name."""
    base: str | None = None
    """The base of an adapter, if it is not the one that it says."""


@dataclass(frozen=True)
class ExportOptions:
    """How to write a form."""

    image_size: InputSize = "native"
    """That predictions of pictures will be made at, and that is written."""
    half: bool = False
    """float16, where a form has it."""
    base_model: str | None = None
    """Hub id or folder of the `transformers` base, for PEFT."""


class Form(ABC, Generic[M]):
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
    """How others use it; `{repo}` is the repository, `{unit}` what its depth is in."""

    @abstractmethod
    def recognises(self, path: Path) -> bool:
        """Whether a file or folder is of this form."""

    @abstractmethod
    def open(self, path: Path, asked: Asked) -> M:
        """Open it as this project does.

        Raises:
            UserError: Saying what does not fit.
        """

    @abstractmethod
    def write(self, opened: M, folder: Path, options: ExportOptions) -> None:
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

    def probes(self, opened: M, size: InputSize) -> list[Any]:
        """Inputs to compare on, the same at every call."""
        return opened.probes(size)


def save(form: Form[M], opened: M, folder: Path, options: ExportOptions) -> float:
    """Write a network in a form, reopen it, compare, and only then keep it.

    Args:
        form: Which.
        opened: Its adapters are folded in, in place, where the form wants it so.
        folder: Must not exist, or be empty. It appears whole or not at all.
        options: How.

    Returns:
        The largest relative difference on the probes.

    Raises:
        ExtraError: If a package is missing.
        ExportError: If the folder is taken, the form cannot hold the network, or the
            difference is above the form's tolerance.
    """
    check_installed(f"the {form.name} export", "export", *form.needs)
    if options.half and form.allowed(options) == form.tolerance:
        raise ExportError("half precision is an option of the onnx export alone")
    check_free(folder)
    opened.adapted.eval()
    if form.folds_in:
        opened.merged()
    with whole_folder(folder) as new:
        try:
            form.write(opened, new, options)
        except SafetensorError as error:
            # Its writer has no OSError for a full disk.
            raise ExportError(f"{folder} cannot be written ({error})") from None
        reopened, each = form.reopened(new), []
        for probe in form.probes(opened, options.image_size):
            found = opened.difference(reopened, probe)
            if found is None:
                found = difference(opened.adapted, reopened, probe)
            each.append(found)
        worst = largest(each)
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


def largest(differences: Iterable[float]) -> float:
    """The largest, or NaN if one is NaN, which `max` may lose; 0 of none."""
    return max(differences, key=lambda found: (math.isnan(found), found), default=0.0)


@torch.no_grad()
def difference(network: nn.Module, reopened: Reopened, image: Tensor) -> float:
    """Largest |a - b| / |a| between the two on one batch of images.

    |a| is at least a thousandth of its mean: disparity may be 0.
    """
    expected, found = network(image), reopened(image)
    scale = expected.abs().clamp(min=1e-3 * expected.abs().mean().item())
    worst: float = ((found - expected).abs() / scale).max().item()
    return worst
