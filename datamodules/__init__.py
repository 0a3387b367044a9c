"""What is on disk: data sets as batches of `DepthBatch`."""

from datamodules.folder import FolderDataModule
from datamodules.synthetic import SyntheticDataModule

__all__ = ["FolderDataModule", "SyntheticDataModule"]
