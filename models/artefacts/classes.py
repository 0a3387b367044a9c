"""Classes by their dotted names, as artefacts record them: never run what a file says.

A file that somebody hands on must not choose what is imported. So a name means a class
of this project, or one of a module that the program has imported by itself, and only
one of the kind that is looked for.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TypeVar

from models.errors import CheckpointError

T = TypeVar("T")


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
