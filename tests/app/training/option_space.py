"""Every option there is, and another value for each: made from the classes themselves.

A new option is found here by itself; one of a type that is not known yet stops the
tests until `OTHER` says what another value of it is.
"""

import inspect
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

OTHER: dict[str, Any] = {
    "adapter.exclude": ["fc1"],
    "adapter.scale": 0.25,
    "augment.crop": [14, 28],
    "augment.rotate_deg": 2.0,
    "augment.scale": [1.0, 1.5],
    "augment.brightness": [0.5, 1.5],
    "data.image_size": [42, 42],
    "data.camera": {"fov_deg": [50, 60]},
    "model.weights": "tiny-rooms",
    "optimisation.encoder_lr": 3e-4,
    "optimisation.optimizer": "torch.optim.SGD",
}
"""Where the type alone does not tell a value that is allowed."""
LINKED = ("model.max_depth", "model.image_size")
"""Not given by anybody: they are those of the data."""


def options(
    kind: type, under: str, now: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Dotted name of each option of a class, and a value that it does not have.

    Args:
        kind: A dataclass, or a class by its constructor.
        under: What stands before the names.
        now: The values that they have, by dotted name.
    """
    hints = get_type_hints(kind if is_dataclass(kind) else kind.__init__)
    for name in inspect.signature(kind).parameters:
        whole, hint = f"{under}.{name}", hints[name]
        inner = next((h for h in _members(hint) if is_dataclass(h)), None)
        short = ".".join(whole.split(".")[-2:])
        if short in LINKED or (inner is not None and name == "adapter"):
            continue
        if short in OTHER:
            yield whole, OTHER[short]
        elif inner is not None:
            yield from options(inner, whole, now)
        else:
            yield whole, other(hint, now.get(whole), short)


def other(hint: Any, now: Any, name: str) -> Any:
    """A value of a type that is not the present one."""
    for member in _members(hint):
        if get_origin(member) is Literal:
            return next(choice for choice in get_args(member) if choice != now)
        if member is bool:
            return not now
        if member is int:
            return 3 if now is None else now + 1
        if member is float:
            return now / 2 if now else 0.25
        if get_origin(member) in (Sequence, tuple) and str in get_args(member):
            return ["qkv"]
        if get_origin(member) in (Mapping, dict):
            return {"qkv": 3}
    raise AssertionError(f"say in OTHER what another value of {name} ({hint}) is")


def _members(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) in (Union, types.UnionType):
        return get_args(hint)
    return (hint,)
