"""A network's family and specification as plain types, and back.

A file that somebody hands on must not choose what is imported. So the name of a class
means one of this project, or of a module that the program has imported by itself, and
only one of the kind that is looked for.
"""

import dataclasses
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar

from models.errors import CheckpointError
from models.networks.depth_network import DepthNetwork
from models.networks.interface import Network, OutputSpec

T = TypeVar("T")


def network_to_dict(family: type[Network], spec: OutputSpec) -> dict[str, Any]:
    """What any description says of its network; an unusual family is named."""
    assert dataclasses.is_dataclass(spec)
    assert not isinstance(spec, type)
    usual = family is DepthNetwork
    named = {} if usual else {"family": class_name(family)}
    return {"network": dataclasses.asdict(spec), **named}


def network_from_dict(content: Mapping[str, Any]) -> tuple[type[Network], OutputSpec]:
    """The inverse of `network_to_dict`.

    Raises:
        CheckpointError, NetworkError: If there is no such family or network.
    """
    family: type[Network] = DepthNetwork
    if "family" in content:
        family = class_named(content["family"], Network, "models")  # type: ignore[type-abstract]
    spec: OutputSpec = family.spec_type(**content["network"])
    return family, spec


def class_name(kind: type) -> str:
    """The dotted name of a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def class_named(name: str, base: type[T], root: str) -> type[T]:
    """The class of this dotted name.

    Args:
        name: From a file.
        base: What it must be a subclass of.
        root: Package of this project in which modules may be imported for it.

    Raises:
        CheckpointError: If there is none, or it may not be imported.
    """
    module, _, attribute = name.rpartition(".")
    known = module in sys.modules
    if not known and f"{module}.".startswith(f"{root}."):
        known = find_spec(root) is not None and _exists(module)
    found = getattr(import_module(module), attribute, None) if known else None
    if not (isinstance(found, type) and issubclass(found, base)):
        raise CheckpointError(
            f"it is of the class {name!r}, which is no {base.__name__} of {root}; put "
            f"the file that defines it below {root}/"
        )
    return found


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
