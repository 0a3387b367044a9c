"""An adapter of a depth network apart from its base, as files hold and banks take it.

`open_adapter` of `opening.py` reads one; many of them share one frozen network
(`models.adapters.AdapterBank`). What is depth's own (the range, the size of images,
the scores) stands in its record.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from torch import Tensor

from models.adapters import AdapterError, OpenedAdapter
from models.artefacts.adapter_folder import write_adapter
from models.artefacts.depth_record import DepthRecord
from models.errors import CheckpointError


@dataclass(frozen=True)
class DepthAdapter(OpenedAdapter):
    """A trained adapter and its record."""

    record: DepthRecord | None = None
    """None of an adapter of others, which does not say where it began."""

    @classmethod
    def of(
        cls, record: DepthRecord, tensors: Mapping[str, Tensor], source: str
    ) -> Self:
        """The adapter of a record.

        Raises:
            CheckpointError: If the whole network was trained.
        """
        if record.adapter is None:
            raise CheckpointError(
                f"{source} is a whole network, not an adapter; open it as a model"
            )
        whole = record.base.part == "network"
        return cls(
            config=record.adapter,
            # Those of a checkpoint are mapped: a file that is written over later would
            # end the process.
            tensors={name: tensor.clone() for name, tensor in tensors.items()},
            base_sha256=record.base_sha256,
            base_part="" if whole else record.family.encoder_name,
            source=source,
            record=record,
        )

    def save(self, folder: Path) -> None:
        if self.record is None:
            raise AdapterError(
                f"{self.source} does not say which base it is for, so no folder of it "
                "could be opened again; keep it as it is"
            )
        write_adapter(self.tensors, self.record, folder)
