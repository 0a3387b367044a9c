"""How a prediction meets its truth, beside what the protocol says."""

from dataclasses import dataclass
from typing import Literal
from typing import Protocol as Interface

from datamodules.protocols import Protocol
from models.alignment import Align
from models.errors import OptionError

LABELS: dict[Align, str] = {
    "none": "metric",
    "median": "median-scaled, not metric",
    "scale_shift": "scale and shift fitted, not metric",
    "disparity": "affine disparity fitted, not metric",
}


@dataclass(frozen=True)
class Scoring:
    """How `test` scores beside what the protocol says."""

    align: Align = "none"
    """Fit each prediction to its truth first: `median`, `scale_shift`, or `disparity`,
    which relative networks need. Never to be compared with metric results."""
    flip_tta: bool = False
    """Average the prediction with that of the mirrored image, as ZoeDepth's and
    NeWCRFs' evaluation does."""
    boundary: bool = False
    """Score edges as well: Depth Pro's boundary F1, of dense truth alone."""
    per_image: bool = False
    """Write each image's scores into a CSV beside the results, which `python -m
    app.compare` compares with another run's."""

    @property
    def label(self) -> str:
        """What these results are called in a table."""
        return LABELS[self.align] + (", with flip" if self.flip_tta else "")

    @property
    def suffix(self) -> str:
        """What marks these results among others; empty for plain ones."""
        aligned = "" if self.align == "none" else f"_aligned_{self.align}"
        return aligned + ("_flip" if self.flip_tta else "")


@dataclass(frozen=True)
class LanguageScoring:
    """How `test` finds the answer of a language model."""

    scoring: Literal["generate", "likelihood"] = "generate"
    """`generate`: the first label in the generated text, as the literature does.
    `likelihood`: the most likely of an item's options."""
    beams: int = 4
    """Of the search that generates."""
    new_tokens: int = 32
    """Generated at most."""

    def __post_init__(self) -> None:
        if self.beams < 1 or self.new_tokens < 1:
            raise OptionError(
                f"--beams {self.beams} and --new_tokens {self.new_tokens} must be 1 or "
                "more"
            )


SCORINGS = (Scoring, LanguageScoring)
"""Options of `test`; each module has its own kind of them."""


class Scored(Interface):
    """What evaluation has to know of a data module."""

    protocol: Protocol
