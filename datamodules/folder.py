"""A user's own RGB-D frames: folders of files, or a CSV."""

import math
from hashlib import sha256
from pathlib import Path
from typing import get_args

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from datamodules.base import DepthDataModule
from datamodules.batch import Frames
from datamodules.errors import DataError
from datamodules.files.cameras import OneCamera
from datamodules.files.depths.reading import Unknown
from datamodules.files.images.headers import Exif
from datamodules.files.lists.tables import read_table
from datamodules.files.lists.trees import find_in_tree
from datamodules.files.pairs import DepthResize, PairFrames, Pairs
from datamodules.loading import OnError
from datamodules.protocols import Protocol, full
from datamodules.sizes import Shrink
from datamodules.splits import (
    SPLIT_COLUMN,
    Split,
    SplitBy,
    held_out,
    on_both_sides,
    said,
    says_split,
)
from datamodules.transforms import Augment


class FolderDataModule(DepthDataModule):
    """Your own camera: `images/` and `depths/` with equal stems, or a CSV.

    Args:
        root: A folder that has one of pictures (`images`, `image`, `rgb`, `color`,
            `img`, ...) and one of depth maps (`depths`, `depth`, `depth_gt`, ...),
            itself or in folders of scenes, matched by relative path without suffix;
            TUM RGB-D sequences, matched by time; or a CSV
            `image,depth[,fx,fy,cx,cy][,depth_scale][,split]` whose paths are relative
            to it.
        depth_scale: Stored units per metre: 1000 for millimetres, 256 for KITTI, 5000
            for TUM, 1 for metres. Never guessed. A CSV's own column overrules it.
        max_depth: Metres; truth beyond it is ignored and the output saturates there.
        val_root: A second root for validation and test; null splits off a part.
        val_fraction: Part of the frames that is split off, at random by `seed`.
        split_by: What stays together then: `frame`, `folder`, or `column:NAME` of a
            CSV; a column whose words are train, val and test is the split itself. null
            is `column:split` where a CSV has it, else `frame`.
        image_folder: Name of the folders of pictures, where the common ones do not fit
            or several do.
        depth_folder: Likewise of the folders of depth maps.
        unknown: NaN, infinite and negative depths: `error`, or `ignore` them as
            unknown, like 0 and the background (1e10) of a renderer's `.exr`.
        unknown_values: One or several more stored numbers that mean unknown, such as
            65535; they are compared before depth_scale.
        depth_resize: A depth map of another size than its picture: `error`, or
            `nearest` where the two have one shape: each pixel of the picture gets the
            nearest stored depth.
        image_size: Network input (rows, cols) in pixels, multiples of 14.
        batch_size: Frames per process and step.
        num_workers: Processes that read frames.
        seed: Of the split, the order and the augmentation.
        augment: What training does to a frame.
        on_error: A frame that cannot be read stops the run with its name, or is left
            out (`skip`), counted and named.
        exif: Pictures are turned upright by their EXIF orientation (`apply`), or taken
            as stored (`ignore`); depth maps have none, so they must be as these.
        image_shrink: How pictures more than 1.5 times as large as the input are made
            smaller: by the `area`'s mean, or `cubic` without a filter, as the official
            code does.
        focal_px: Focal length of all pictures in their pixels. It goes before a CSV's
            and that of a `camera.json` (`{"fx": ..., "fy": ..., "cx": ..., "cy": ...}`)
            in the root or a scene; EXIF comes last.
        fov_deg: Likewise, as the horizontal field of view.
    """

    def __init__(
        self,
        root: str,
        depth_scale: float,
        max_depth: float,
        val_root: str | None = None,
        val_fraction: float = 0.1,
        split_by: str | None = None,
        image_folder: str | None = None,
        depth_folder: str | None = None,
        unknown: Unknown = "error",
        unknown_values: float | list[float] | None = None,
        depth_resize: DepthResize = "error",
        image_size: tuple[int, int] = (392, 518),
        batch_size: int = 4,
        num_workers: int = 4,
        seed: int = 0,
        augment: Augment = Augment(),  # noqa: B008 - frozen
        on_error: OnError = "error",
        exif: Exif = "apply",
        image_shrink: Shrink = "area",
        focal_px: float | None = None,
        fov_deg: float | None = None,
    ) -> None:
        super().__init__(
            image_size,
            max_depth,
            batch_size,
            num_workers,
            seed,
            augment,
            on_error,
            image_shrink,
        )
        if not 0 < depth_scale < math.inf:
            raise DataError(
                f"depth_scale {depth_scale} must be above 0 and finite: stored units "
                "per metre, 1000 for millimetres, 256 for KITTI, 1 for metres"
            )
        if not root:
            raise DataError("root is empty: give a folder or a CSV file")
        if val_root is None and not 0 < val_fraction < 1:
            raise DataError(
                f"val_fraction {val_fraction} must lie between 0 and 1, or give "
                "val_root"
            )
        if depth_resize not in get_args(DepthResize):
            raise DataError(
                f"depth_resize {depth_resize!r} is not known; use error or nearest"
            )
        self.root, self.val_root = root, val_root
        self.depth_scale, self.val_fraction = depth_scale, val_fraction
        self.split_by = None if split_by is None else SplitBy.parse(split_by)
        if val_root is not None and split_by not in (None, "frame"):
            raise DataError(
                f"split_by {split_by} has no effect beside val_root; give one of them"
            )
        self.image_folder, self.depth_folder = image_folder, depth_folder
        self.unknown: Unknown = unknown
        self.exif: Exif = exif
        self.camera = OneCamera(focal_px, fov_deg)
        self.unknown_values = _several(unknown_values)
        self.depth_resize: DepthResize = depth_resize
        self._found: dict[str, Pairs] = {}
        self._warned = self._warned_of_repeats = False
        self._identity: dict[str, str] | None = None

    @property
    def protocol(self) -> Protocol:
        return full(self.max_depth)

    def frames(self, split: Split) -> Frames:
        """Training frames, or the same held-out ones for validation and test."""
        return PairFrames(
            self._pairs(split),
            self.unknown,
            unknown_values=self.unknown_values,
            depth_resize=self.depth_resize,
            exif=self.exif,
            camera=self.camera,
        )

    def _pairs(self, split: Split) -> Pairs:
        held = split != "train"
        root = self.root if self.val_root is None or not held else self.val_root
        pairs = self._read(root)
        column = SPLIT_COLUMN if self.split_by is None else self.split_by.column
        if pairs.split is not None and says_split(pairs.split, column, root):
            return said(pairs, pairs.split, split, root)
        if self.val_root is not None:
            return pairs
        groups = pairs.split
        if self.split_by is not None and self.split_by.kind == "folder":
            groups = pairs.folders()
        repeated = None if groups else pairs.pictures()
        if repeated and not 1 < len(repeated.names) < len(pairs):
            repeated = None
        try:
            chosen = held_out(
                len(pairs), self.val_fraction, self.seed, groups or repeated
            )
        except DataError as error:
            raise DataError(f"{root} {error}") from None
        if groups is None:
            self._warn_of_neighbours(pairs, chosen)
        if repeated:
            self._warn_of_repeats(len(pairs) - len(repeated.names), root)
        return pairs.chosen(np.flatnonzero(chosen == held))

    def trained_and_held_out(self) -> list[str]:
        """Pictures on both sides, where a table or `val_root` brings that about."""
        if self.val_root is None and Path(self.root).expanduser().is_dir():
            return []  # a folder has each picture once: no run waits for a look
        train, *held = (
            set(self._pairs(split).pictures().names)
            for split in ("train", "val", "test")
        )
        return sorted(train & set().union(*held))

    def split_identity(self) -> dict[str, str]:
        if self._identity is None:
            options = (self.root, self.val_root, self.val_fraction, self.seed)
            groups = (self.split_by, self.image_folder, self.depth_folder)
            names = "\n".join(sorted(self._pairs("val").relative()))
            self._identity = {
                "options": repr((*options, *groups)),
                "frames": sha256(names.encode()).hexdigest(),
            }
        return self._identity

    def _read(self, root: str) -> Pairs:
        """All frames of a root, which are looked for once."""
        if root not in self._found:
            self._found[root] = find_pairs(
                Path(root).expanduser(),
                self.depth_scale,
                image_folder=self.image_folder,
                depth_folder=self.depth_folder,
                split_by=self.split_by,
            )
        return self._found[root]

    def _warn_of_repeats(self, count: int, root: str) -> None:
        if not self._warned_of_repeats:
            self._warned_of_repeats = True
            rank_zero_warn(
                f"{root} has {count} rows whose picture another row has, too; all rows "
                "of a picture are on one side of the split"
            )

    def _warn_of_neighbours(self, pairs: Pairs, chosen: NDArray[np.bool_]) -> None:
        """Frames of one folder, on both sides of the split, may be of one video."""
        if self._warned:
            return
        self._warned = True
        labels = pairs.folders()
        shared = on_both_sides(labels, chosen)
        if shared:
            apart = (
                "--data.split_by folder"
                if len(labels.names) > 1
                else "a CSV's column `split`, or --data.val_root"
            )
            rank_zero_warn(
                f"frames of {len(shared)} of {len(labels.names)} folders "
                f"({', '.join(shared[:3])}) stand on both sides of the split by frame: "
                "where neighbours are nearly alike, as in videos, scores will look "
                f"better than they are; keep them apart with {apart}"
            )


def find_pairs(
    root: Path,
    depth_scale: float,
    *,
    image_folder: str | None = None,
    depth_folder: str | None = None,
    split_by: SplitBy | None = None,
) -> Pairs:
    """All frames of a root, in the order of their names, or of the table.

    Args:
        root: A folder or a table.
        depth_scale: Stored units per metre where a table does not say it.
        image_folder: Name of a tree's folders of pictures; None for the common ones.
        depth_folder: Likewise.
        split_by: A table's column becomes the pairs' `split`; None takes `split` where
            the table has it.

    Raises:
        DataError: If the root is missing or empty, or frames lack a partner.
    """
    if not root.exists():
        raise DataError(
            f"data root {root} does not exist; give a folder with images/ and depths/, "
            "or a CSV file"
        )
    named = {"image_folder": image_folder, "depth_folder": depth_folder}
    if root.is_file():
        for option, value in named.items():
            if value is not None:
                raise DataError(
                    f"{option} {value} has no effect on the table {root}, which has "
                    "its own paths"
                )
        if split_by is None:
            return read_table(root, depth_scale, SPLIT_COLUMN, may_lack_it=True)
        column = split_by.column if split_by.kind == "column" else None
        return read_table(root, depth_scale, column)
    if split_by is not None and split_by.kind == "column":
        raise DataError(
            f"{root} is a folder and has no column {split_by.column!r}; give a CSV, or "
            "--data.split_by folder"
        )
    return find_in_tree(root, depth_scale, **named)


def _several(values: float | list[float] | None) -> tuple[float, ...]:
    if values is None:
        return ()
    return tuple(values) if isinstance(values, list) else (values,)
