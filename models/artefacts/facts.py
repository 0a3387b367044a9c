"""What a model card says of a model, whatever its task."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Facts:
    """Of one model."""

    task: str
    """The Hub's name of it."""
    tags: tuple[str, ...]
    words: str
    """What it is, in a sentence that ends in "with LAVA Depth"."""
    base: str | None
    """What the card calls the base; None where that is not recorded."""
    base_id: str | None
    """The base's repository, where the Hub has it."""
    forms: Mapping[str, str]
    """`OpenedModel.forms`."""
    shown: Callable[[dict[str, Any]], "Result | None"]
    """Of the content of a `test_*.json` what the card shows; None for nothing."""
    more: Mapping[str, str] = field(default_factory=dict)
    """Further rows of its table."""
    usage: Mapping[str, str] = field(default_factory=dict)
    """How a form is used, by its name, where that is not as the form says."""


@dataclass(frozen=True)
class Result:
    """A result on a card."""

    heading: str
    metrics: Mapping[str, float]
    dataset: tuple[str, str, str] | None = None
    """Type, name and configuration of the data set, for the Hub's own list of results;
    None keeps it out of that."""
    metric: str | None = None
    """The Hub's name of the metric, where all of them are one; None takes theirs."""
