"""KITTI: raw drives with the annotated depth maps, by Eigen's split."""

from pathlib import Path
from typing import Literal

from datamodules.base import DepthDataModule, Split
from datamodules.batch import Frames
from datamodules.errors import DataError
from datamodules.files.cameras import KittiCameras
from datamodules.files.lists.field_lists import (
    PROBED,
    PrefixProbe,
    choose_root,
    list_paths,
    read_truth,
)
from datamodules.files.pairs import Pair, PairFrames, check_files
from datamodules.loading import OnError
from datamodules.protocols import KITTI, KittiProtocol, Protocol
from datamodules.sizes import Shrink
from datamodules.transforms import Augment

DEPTH_SCALE = 256  # development kit: metres = png / 256
TRAIN_LIST = "kitti_eigen_train_files_with_gt.txt"
TEST_LIST = "kitti_eigen_test_files_with_gt.txt"
RAW_FOLDERS = ("", "raw", "raw_data", "kitti_raw", "KITTI_raw")
DEPTH_FOLDERS = (
    "data_depth_annotated",
    "",
    "gt_depth",
    "data_depth_annotated_zoedepth",
)
PREFIXES = ("", "train", "val")


class KITTIDataModule(DepthDataModule):
    """KITTI by Eigen's split: 23,158 training and 652 test images, 80 m.

    Truth is the annotated depth; of the 697 lines of Eigen's test list 45 have none.
    The lists leave out whether a drive lies in `train/` or `val/` of the annotated
    depth; both are looked in, as is a merged folder. Intrinsics are those of the
    drives' `calib_cam_to_cam.txt`, or else the list's focal length. As everywhere in
    the field, validation looks at the test images.

    Args:
        root: The folder with everything, or give its parts:
        raw_root: Where `2011_09_26/...` starts; null looks in root.
        depth_root: `data_depth_annotated`, whole or merged; null looks in root.
        train_list: List file; null is `kitti_eigen_train_files_with_gt.txt` in root.
        test_list: Likewise, `kitti_eigen_test_files_with_gt.txt`.
        eval_protocol: How scores are made. `kitti_eigen_garg_kb`: Garg's crop of the
            KB window (ZoeDepth, Depth Anything V1); `kitti_eigen_garg_full`: Garg's
            crop of the whole frame (BTS offline); `kitti_da2`: no crop (Depth
            Anything V2's training script), images one by one in their own shape, the
            shorter side 518 px as there, whatever image_size is.
        max_depth: Metres at which the network saturates and up to which it is trained.
        image_size: Network input (rows, cols) in pixels, multiples of 14.
        batch_size: Frames per process and step.
        num_workers: Processes that read frames.
        seed: Of order and augmentation.
        augment: What training does to a frame.
        on_error: A frame that cannot be read stops the run with its name, or is left
            out (`skip`), counted and named.
        image_shrink: How pictures more than 1.5 times as large as the input are made
            smaller: by the `area`'s mean, or `cubic` without a filter, as the official
            code does.
    """

    def __init__(
        self,
        root: str = "data/kitti",
        raw_root: str | None = None,
        depth_root: str | None = None,
        train_list: str | None = None,
        test_list: str | None = None,
        eval_protocol: KittiProtocol = "kitti_eigen_garg_kb",
        max_depth: float = 80.0,
        image_size: tuple[int, int] = (364, 1218),
        batch_size: int = 4,
        num_workers: int = 4,
        seed: int = 0,
        augment: Augment = Augment(brightness=(0.9, 1.1)),  # noqa: B008 - frozen
        on_error: OnError = "error",
        image_shrink: Shrink = "area",
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
        self.root = Path(root).expanduser()
        self.raw_root = Path(raw_root).expanduser() if raw_root else None
        self.depth_root = Path(depth_root).expanduser() if depth_root else None
        self.lists = list_paths(
            self.root, train_list, test_list, (TRAIN_LIST, TEST_LIST)
        )
        self.eval_protocol = eval_protocol

    @property
    def protocol(self) -> Protocol:
        return KITTI[self.eval_protocol]

    @property
    def train_window(self) -> Literal["kb"]:
        return "kb"

    def frames(self, split: Split) -> Frames:
        """Training frames, or the test frames for validation and test."""
        source = self.lists["train" if split == "train" else "test"]
        if not source.is_file():
            raise DataError(
                f"{source} does not exist; it is Eigen's list as BTS and ZoeDepth "
                f"have it: put it there or give --data.{source.name.split('_')[2]}_list"
            )
        lines = read_truth(source)
        raw = self.raw_root or choose_root(
            [line.image for line, _ in lines],
            self.root,
            RAW_FOLDERS,
            "KITTI's raw drives",
        )
        depth_root = self.depth_root or choose_root(
            [
                f"{prefix}/{depth}".lstrip("/")
                for _, depth in lines[:PROBED]
                for prefix in PREFIXES
            ],
            self.root,
            DEPTH_FOLDERS,
            "KITTI's annotated depth",
        )
        depth_of = PrefixProbe(depth_root, PREFIXES, lambda name: name.split("/")[0])
        camera_of = KittiCameras(raw)
        pairs = [
            Pair(
                raw / line.image,
                depth_of(depth),
                DEPTH_SCALE,
                camera_of(line.image, line.focal_px),
            )
            for line, depth in lines
        ]
        check_files(pairs, str(source))
        return PairFrames(pairs, may_be_empty=True)
