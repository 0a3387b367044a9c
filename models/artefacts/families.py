"""A network's family and specification as plain types, and back."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from models.artefacts.classes import class_name, class_named
from models.networks.depth_network import DepthNetwork
from models.networks.interface import Network, OutputSpec


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
