"""How a prediction meets its truth, beside what the protocol says."""

from dataclasses import dataclass
from typing import Protocol as Interface

from datamodules.protocols import Protocol
from models.alignment import Align


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

    @property
    def suffix(self) -> str:
        """What marks these results among others; empty for plain ones."""
        aligned = "" if self.align == "none" else f"_aligned_{self.align}"
        return aligned + ("_flip" if self.flip_tta else "")


class Scored(Interface):
    """What evaluation has to know of a data module."""

    protocol: Protocol
