"""Checkpoints as files that appear whole or not at all."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from datamodules.files.whole import write_bytes


class WholeCheckpoints(TorchCheckpointIO):
    """Written beside the checkpoint and renamed.

    Lightning writes into the temporary folder and moves from there, which is a copy,
    and can be cut off, where that is on another disk than the run.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = io.BytesIO()
        torch.save(checkpoint, content)
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, content.getbuffer())
