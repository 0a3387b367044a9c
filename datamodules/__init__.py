"""What is on disk: data sets as batches of `DepthBatch`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamodules.commonsense import CommonsenseDataModule
    from datamodules.folder import FolderDataModule
    from datamodules.kitti import KITTIDataModule
    from datamodules.mixed import MixedDataModule
    from datamodules.nyu import NYUDataModule
    from datamodules.objects import ObjectsDataModule
    from datamodules.synthetic import SyntheticDataModule
    from datamodules.worlds import WorldsDataModule

__all__ = [
    "CommonsenseDataModule",
    "FolderDataModule",
    "KITTIDataModule",
    "MixedDataModule",
    "NYUDataModule",
    "ObjectsDataModule",
    "SyntheticDataModule",
    "WorldsDataModule",
]
_HOMES = {
    "CommonsenseDataModule": "commonsense",
    "FolderDataModule": "folder",
    "KITTIDataModule": "kitti",
    "MixedDataModule": "mixed",
    "NYUDataModule": "nyu",
    "ObjectsDataModule": "objects",
    "SyntheticDataModule": "synthetic",
    "WorldsDataModule": "worlds",
}


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: whoever wants a light module of this floor, such as
    # its errors, does not wait for Lightning.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
