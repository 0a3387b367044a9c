"""What files say of an adapter: the names of its tensors, its method and options."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from models.adapters.base import AdapterConfig, AdapterError
from models.adapters.methods import METHODS
from models.adapters.trained import trained_tensors


def adapter_names(network: nn.Module, also: Iterable[str] = ()) -> list[str]:
    """State-dict keys that make an adapter: its own tensors and all that is trained.

    A tensor that is known under several names has the first of them.

    Args:
        network: With adapters in place.
        also: More keys to count in, such as layers that were new when training began.
    """
    wanted = trained_tensors(network).keys() | set(also)
    return [name for name in network.state_dict() if name in wanted]


def describe(config: AdapterConfig) -> dict[str, Any]:
    """Method and options in plain types.

    Raises:
        AdapterError: For a method that no file could be opened with again.
    """
    name = type(config).__name__
    if METHODS.get(name) is not type(config):
        raise AdapterError(
            f"the method {name} is not in METHODS of models/adapters/methods, so that "
            "nothing trained with it could be opened again; enter it there"
        )
    options = {
        name: _plain(value) for name, value in dataclasses.asdict(config).items()
    }
    return {"method": name, "options": options}


def differences(now: AdapterConfig | None, before: AdapterConfig | None) -> list[str]:
    """Each option in which two adapters differ, in words; [] where none does."""
    if now is None or before is None or type(now) is not type(before):
        names = [
            "none" if config is None else type(config).__name__
            for config in (now, before)
        ]
        return [] if now is before else [f"{names[0]} here, {names[1]} there"]
    return [
        f"{field.name} is {getattr(now, field.name)} here, "
        f"{getattr(before, field.name)} there"
        for field in dataclasses.fields(now)
        if _plain(getattr(now, field.name)) != _plain(getattr(before, field.name))
    ]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def config_of(description: Mapping[str, Any]) -> AdapterConfig:
    """The inverse of `describe`."""
    method = METHODS.get(description["method"])
    if method is None:
        raise AdapterError(
            f"method {description['method']!r} is not known; this program has "
            f"{', '.join(METHODS)}"
        )
    known = {field.name for field in dataclasses.fields(method)}
    strange = sorted(description["options"].keys() - known)
    if strange:
        raise AdapterError(
            f"{method.__name__} has no option {strange[0]!r}; update the program"
        )
    return method(**description["options"])
