"""NYU Depth v2 in the three forms that people have it in."""

from pathlib import Path
from typing import Literal, get_args

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from datamodules.base import DepthDataModule, Split
from datamodules.batch import Frames
from datamodules.errors import DataError
from datamodules.files.download import fetch
from datamodules.files.hdf5 import H5Frames, MatFrames, read_split
from datamodules.files.lists.field_lists import choose_root, list_paths, read_truth
from datamodules.files.pairs import Pair, PairFrames, check_files
from datamodules.loading import OnError
from datamodules.protocols import NYU_EIGEN, Protocol, WindowName
from datamodules.sizes import Shrink
from datamodules.transforms import Augment

Layout = Literal["auto", "lists", "h5", "mat"]

INTRINSICS = np.array(
    [[518.85790, 0, 325.58245], [0, 519.46961, 253.73617], [0, 0, 1]], np.float32
)
"""Of the colour camera, from the data set's toolbox."""
DEPTH_SCALE = 1000  # BTS's PNGs are millimetres

LABELLED, SPLITS = "nyu_depth_v2_labeled.mat", "splits.mat"
SITE = "http://horatio.cs.nyu.edu/mit/silberman"
LABELLED_BYTES, LABELLED_MD5 = 2_972_037_809, "520609c519fba3ba5ac58c8fefcc3530"
SPLITS_BYTES, SPLITS_MD5 = 2_626, "08e3c3aea27130ac7c01ffd739a4535f"

TRAIN_LIST = "nyudepthv2_train_files_with_gt.txt"
TEST_LIST = "nyudepthv2_test_files_with_gt.txt"
TRAIN_FOLDERS = ("", "sync", "nyu_depth_v2/sync", "train", "official_splits/train")
TEST_FOLDERS = (
    "",
    "official_splits/test",
    "nyu_depth_v2/official_splits/test",
    "test",
)


class NYUDataModule(DepthDataModule):
    """NYU Depth v2, scored by `nyu_eigen`: 654 test images, Eigen's crop, 10 m.

    `lists`: the folders and list files of BTS and ZoeDepth (24,231 / 654 frames, raw
    depth). `h5`: FastDepth's `train/` and `val/` trees (in-painted depth: other numbers
    than the literature's). `mat`: the official labelled set (795 / 654 frames, tested
    on raw depth). As everywhere in the field, validation looks at the test images.

    Args:
        root: The folder with the data; for `mat` also the file itself.
        layout: Which form; `auto` looks.
        train_list: List file; null is `nyudepthv2_train_files_with_gt.txt` in root.
        test_list: Likewise, `nyudepthv2_test_files_with_gt.txt`.
        train_root: Where the training list's paths start; null looks below root.
        test_root: Likewise for the test list; the two have different roots.
        inpainted: `mat`: train on in-painted depth, which has no holes.
        crop_border: Train without the white border that registration left.
        download: Fetch the labelled set (2.97 GB) into root if it is not there.
        url: Where from; a mirror has `nyu_depth_v2/nyu_depth_v2_labeled.mat` and
            `indoor_seg_sup/splits.mat` below it, as the official site has.
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
        root: str = "data/nyu",
        layout: Layout = "auto",
        train_list: str | None = None,
        test_list: str | None = None,
        train_root: str | None = None,
        test_root: str | None = None,
        inpainted: bool = False,
        crop_border: bool = True,
        download: bool = False,
        url: str = SITE,
        max_depth: float = 10.0,
        image_size: tuple[int, int] = (392, 518),
        batch_size: int = 4,
        num_workers: int = 4,
        seed: int = 0,
        augment: Augment = Augment(),  # noqa: B008 - frozen
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
        if layout not in get_args(Layout):
            raise DataError(
                f"layout {layout!r} is not known; use one of "
                f"{', '.join(get_args(Layout))}"
            )
        self.root, self.layout = Path(root).expanduser(), layout
        self.lists = list_paths(
            self.root, train_list, test_list, (TRAIN_LIST, TEST_LIST)
        )
        self.roots = {
            "train": Path(train_root).expanduser() if train_root else None,
            "test": Path(test_root).expanduser() if test_root else None,
        }
        self.inpainted, self.crop_border = inpainted, crop_border
        self.download, self.url = download, url.rstrip("/")

    @property
    def protocol(self) -> Protocol:
        return NYU_EIGEN

    @property
    def train_window(self) -> WindowName:
        return "nyu_border" if self.crop_border else "none"

    def prepare_data(self) -> None:
        """Fetch the labelled set where `download` asks for it, in one process."""
        if not self.download:
            return
        path = self._labelled
        if not path.is_file():
            size = f"{LABELLED_BYTES / 1e9:.2f} GB"
            rank_zero_info(f"fetching {self.url}, {size}, into {path.parent}")
        fetch(
            f"{self.url}/nyu_depth_v2/{LABELLED}",
            path,
            md5=LABELLED_MD5,
            size_bytes=LABELLED_BYTES,
        )
        fetch(
            f"{self.url}/indoor_seg_sup/{SPLITS}",
            path.with_name(SPLITS),
            md5=SPLITS_MD5,
            size_bytes=SPLITS_BYTES,
        )

    def frames(self, split: Split) -> Frames:
        """Training frames, or the test frames for validation and test."""
        part: Literal["train", "test"] = "train" if split == "train" else "test"
        layout = self._layout()
        if layout == "lists":
            return self._from_lists(part)
        if layout == "h5":
            return self._from_h5(part)
        inpainted = self.inpainted and part == "train"
        key: Literal["trainNdxs", "testNdxs"] = (
            "trainNdxs" if part == "train" else "testNdxs"
        )
        return MatFrames(
            self._labelled,
            read_split(self._labelled.with_name(SPLITS), key),
            "depths" if inpainted else "rawDepths",
            INTRINSICS,
        )

    @property
    def _labelled(self) -> Path:
        return self.root if self.root.suffix == ".mat" else self.root / LABELLED

    def _layout(self) -> Layout:
        if self.layout != "auto":
            return self.layout
        if not self.root.exists():
            raise DataError(
                f"data root {self.root} does not exist; give NYU's folder as "
                "--data.root, or fetch the labelled set with --data.download true"
            )
        if self._labelled.is_file():
            return "mat"
        if any(path.is_file() for path in self.lists.values()):
            return "lists"
        if (self.root / "val").is_dir():
            return "h5"
        raise DataError(
            f"{self.root} has no {LABELLED}, no {TEST_LIST} and no val/ of .h5 files; "
            "give one of these forms of NYU Depth v2, or the lists as "
            "--data.train_list and --data.test_list"
        )

    def _from_lists(self, part: Literal["train", "test"]) -> Frames:
        lines = read_truth(self.lists[part])
        root = self.roots[part] or choose_root(
            [line.image for line, _ in lines],
            self.root,
            TRAIN_FOLDERS if part == "train" else TEST_FOLDERS,
            f"NYU's {part} frames",
        )
        pairs = [
            Pair(root / line.image, root / depth, DEPTH_SCALE, INTRINSICS)
            for line, depth in lines
        ]
        check_files(pairs, str(self.lists[part]))
        return PairFrames(pairs, may_be_empty=True)

    def _from_h5(self, part: Literal["train", "test"]) -> Frames:
        folder = self.root / ("train" if part == "train" else "val")
        files = sorted(folder.rglob("*.h5"))
        if not files:
            raise DataError(f"{folder} has no .h5 files")
        return H5Frames(files, INTRINSICS)
