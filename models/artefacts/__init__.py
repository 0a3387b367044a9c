"""Every form on disk of a trained network, written and opened.

`FORMS` is the one list that a new form to hand on enters: its name on the command line
and the module whose `FORM` it is; what a model can be handed on in, it says itself
(`OpenedModel.forms`). The modules are imported when they are asked for,
since a command line wants the names alone.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from models.errors import ExportError

if TYPE_CHECKING:
    from models.artefacts.depth_adapter import DepthAdapter
    from models.artefacts.form import Asked, Form

Engine = Literal["torch", "onnx", "openvino"]
"""What can compute a network: see `engines.py`."""

FORMS: dict[str, str] = {
    "depth-anything": "models.artefacts.merged",
    "transformers": "models.artefacts.transformers",
    "onnx": "models.artefacts.onnx",
    "adapter": "models.artefacts.adapter_folder",
    "peft": "models.artefacts.peft.form",
}
LANGUAGE_FORMS: dict[str, str] = {
    "transformers": "models.artefacts.language.merged",
    "adapter": "models.artefacts.adapter_folder",
    "peft": "models.artefacts.language.peft",
}
"""Likewise, of language models."""


def open_adapter(source: str | Path, asked: "Asked | None" = None) -> "DepthAdapter":
    """An adapter apart from its base, for an `AdapterBank`: see `opening.py`."""
    opening = import_module("models.artefacts.opening")
    found: DepthAdapter = opening.open_adapter(source, asked)
    return found


def form_named(name: str, forms: Mapping[str, str] = FORMS) -> "Form[Any]":
    """The form that a command line calls by this name.

    Args:
        name: Of those that a kind of network can be handed on in.
        forms: They, each with its module.

    Raises:
        ExportError: If it is none of them.
    """
    if name not in forms:
        raise ExportError(
            f"--export-format {name} is not for this model; use {', '.join(forms)}"
        )
    form: Form[Any] = import_module(forms[name]).FORM
    return form
