"""What is on disk: data sets as batches of `DepthBatch`."""

from datamodules.folder import FolderDataModule
from datamodules.kitti import KITTIDataModule
from datamodules.nyu import NYUDataModule
from datamodules.synthetic import SyntheticDataModule

__all__ = [
    "FolderDataModule",
    "KITTIDataModule",
    "NYUDataModule",
    "SyntheticDataModule",
]
