"""Every form on disk of a trained network, written and opened.

`FORMS` is the one list that a new form to hand on enters: its name on the command line
and the module whose `FORM` it is. The modules are imported when they are asked for,
since a command line wants the names alone.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal

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


def open_adapter(source: str | Path, asked: "Asked | None" = None) -> "DepthAdapter":
    """An adapter apart from its base, for an `AdapterBank`: see `opening.py`."""
    opening = import_module("models.artefacts.opening")
    found: DepthAdapter = opening.open_adapter(source, asked)
    return found


def form_named(name: str) -> "Form":
    """The form that a command line calls by this name."""
    form: Form = import_module(FORMS[name]).FORM
    return form
