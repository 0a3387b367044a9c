"""A user's own RGB-D frames: two folders of files, or a CSV."""

import csv
from pathlib import Path

import numpy as np

from datamodules.base import DepthDataModule, Split
from datamodules.batch import Frames
from datamodules.errors import DataError
from datamodules.files.depth_files import DEPTH_SUFFIXES, Unknown
from datamodules.files.image_files import IMAGE_SUFFIXES
from datamodules.files.image_headers import Exif
from datamodules.files.pairs import Pair, PairFrames, check_files
from datamodules.files.pictures import visible_files
from datamodules.loading import OnError
from datamodules.protocols import Protocol, full
from datamodules.transforms import Augment

INTRINSICS = ("fx", "fy", "cx", "cy")


class FolderDataModule(DepthDataModule):
    """Your own camera: `images/` and `depths/` with equal stems, or a CSV.

    Args:
        root: A folder with `images/` and `depths/`, matched by relative path without
            suffix, or a CSV `image,depth[,fx,fy,cx,cy][,depth_scale]` whose paths are
            relative to it.
        depth_scale: Stored units per metre: 1000 for millimetres, 256 for KITTI, 1
            for metres. Never guessed. A CSV's own column overrules it.
        max_depth: Metres; truth beyond it is ignored and the output saturates there.
        val_root: A second root for validation and test; null splits off a part.
        val_fraction: Part of the frames that is split off, at random by `seed`.
        unknown: NaN, infinite and negative depths: `error`, or `ignore` them as
            unknown.
        image_size: Network input (rows, cols) in pixels, multiples of 14.
        batch_size: Frames per process and step.
        num_workers: Processes that read frames.
        seed: Of the split, the order and the augmentation.
        augment: What training does to a frame.
        on_error: A frame that cannot be read stops the run with its name, or is left
            out (`skip`), counted and named.
        exif: Pictures are turned upright by their EXIF orientation (`apply`), or taken
            as stored (`ignore`); depth maps have none, so they must be as these.
    """

    def __init__(
        self,
        root: str,
        depth_scale: float,
        max_depth: float,
        val_root: str | None = None,
        val_fraction: float = 0.1,
        unknown: Unknown = "error",
        image_size: tuple[int, int] = (392, 518),
        batch_size: int = 4,
        num_workers: int = 4,
        seed: int = 0,
        augment: Augment = Augment(),  # noqa: B008 - frozen
        on_error: OnError = "error",
        exif: Exif = "apply",
    ) -> None:
        super().__init__(
            image_size, max_depth, batch_size, num_workers, seed, augment, on_error
        )
        if not depth_scale > 0:
            raise DataError(
                f"depth_scale {depth_scale} must be above 0: stored units per metre, "
                "1000 for millimetres, 256 for KITTI, 1 for metres"
            )
        if val_root is None and not 0 < val_fraction < 1:
            raise DataError(
                f"val_fraction {val_fraction} must lie between 0 and 1, or give "
                "val_root"
            )
        self.root, self.val_root = root, val_root
        self.depth_scale, self.val_fraction = depth_scale, val_fraction
        self.unknown: Unknown = unknown
        self.exif: Exif = exif

    @property
    def protocol(self) -> Protocol:
        return full(self.max_depth)

    def frames(self, split: Split) -> Frames:
        """Training frames, or the same held-out ones for validation and test."""
        pairs = find_pairs(Path(self.root), self.depth_scale)
        if self.val_root is not None:
            if split != "train":
                pairs = find_pairs(Path(self.val_root), self.depth_scale)
        else:
            pairs = self._part(pairs, split)
        return PairFrames(pairs, self.unknown, exif=self.exif)

    def _part(self, pairs: list[Pair], split: Split) -> list[Pair]:
        held_out = round(len(pairs) * self.val_fraction)
        if not 0 < held_out < len(pairs):
            raise DataError(
                f"{self.root} has {len(pairs)} frames, of which val_fraction "
                f"{self.val_fraction} would hold out {held_out}; at least one must "
                "train and one validate: add frames, change val_fraction or give "
                "val_root"
            )
        order = np.random.default_rng(self.seed).permutation(len(pairs))
        chosen = order[:held_out] if split != "train" else order[held_out:]
        return [pairs[i] for i in sorted(chosen)]


def find_pairs(root: Path, depth_scale: float) -> list[Pair]:
    """All frames of a root, in the order of their names.

    Raises:
        DataError: If the root is missing or empty, or frames lack a partner.
    """
    if not root.exists():
        raise DataError(
            f"data root {root} does not exist; give a folder with images/ and depths/, "
            "or a CSV file"
        )
    pairs = (
        _from_csv(root, depth_scale)
        if root.is_file()
        else _from_tree(root, depth_scale)
    )
    if not pairs:
        raise DataError(f"{root} has no frames")
    check_files(pairs, str(root))
    return pairs


def _from_tree(root: Path, depth_scale: float) -> list[Pair]:
    images = _by_stem(root / "images", IMAGE_SUFFIXES)
    depths = _by_stem(root / "depths", DEPTH_SUFFIXES)
    alone = sorted(images.keys() ^ depths.keys())
    if alone:
        named = ", ".join(alone[:3])
        raise DataError(
            f"{root}: {len(alone)} of {len(images.keys() | depths.keys())} frames have "
            f"an image or a depth but not both: {named}; frames are matched by their "
            "path below images/ and depths/, without suffix"
        )
    return [Pair(images[stem], depths[stem], depth_scale) for stem in sorted(images)]


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(
            f"{folder} does not exist; a data root has the folders images/ and "
            "depths/, or is a CSV file"
        )
    found: dict[str, Path] = {}
    for path in visible_files(folder):
        if path.suffix.lower() in suffixes and path.is_file():
            stem = path.relative_to(folder).with_suffix("").as_posix()
            if stem in found:
                raise DataError(
                    f"{found[stem]} and {path.name} have the same stem; which one "
                    "belongs to the frame cannot be told: remove one"
                )
            found[stem] = path
    if not found:
        raise DataError(f"{folder} has no files that end in {', '.join(suffixes)}")
    return found


def _from_csv(table: Path, depth_scale: float) -> list[Pair]:
    try:
        with table.open(newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = set(reader.fieldnames or ())
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read as CSV ({error})") from None
    if not {"image", "depth"} <= columns:
        raise DataError(
            f"{table} has the columns {', '.join(sorted(columns)) or 'none'}; its "
            "first line must be image,depth[,fx,fy,cx,cy][,depth_scale]"
        )
    pairs = []
    for number, row in enumerate(rows, start=2):
        try:
            scale = float(row.get("depth_scale") or depth_scale)
            k = [float(row.get(name) or "nan") for name in INTRINSICS]
        except ValueError as error:
            raise DataError(f"{table} line {number}: {error}") from None
        intrinsics = None
        if not np.isnan(k).any():
            intrinsics = np.array(
                [[k[0], 0, k[2]], [0, k[1], k[3]], [0, 0, 1]], np.float32
            )
        image, depth = (table.parent / (row[name] or "") for name in ("image", "depth"))
        pairs.append(Pair(image, depth, scale, intrinsics))
    return pairs
