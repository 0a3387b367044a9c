"""NYU and KITTI as they lie on people's disks, tiny, with known depths."""

from pathlib import Path

import cv2
import h5py
import numpy as np
from scipy.io import savemat

NYU_SIZE, KITTI_SIZE = (480, 640), (375, 1242)


def picture(size, seed) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(small, size[::-1], interpolation=cv2.INTER_LINEAR)


def depth_of(i: int, size) -> np.ndarray:
    """i + 1 metres to the left, i + 2 to the right of the middle; a hole at the top."""
    depth = np.full(size, i + 1, np.float32)
    depth[:, size[1] // 2 :] += 1
    depth[: size[0] // 10] = 0
    return depth


def write_pair(image: Path, depth: Path, i: int, size, scale: int) -> None:
    for path in (image, depth):
        path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(image), picture(size, i)[..., ::-1])
    stored = (depth_of(i, size) * scale).astype(np.uint16)
    assert cv2.imwrite(str(depth), stored)


def write_nyu_lists(root: Path, train=4, test=2) -> Path:
    """Two roots, as after unpacking sync.zip beside the official splits."""
    lines = {"train": [], "test": []}
    for i in range(train):
        folder = root / "sync/kitchen_0028b"
        write_pair(folder / f"rgb_{i}.jpg", folder / f"d_{i}.png", i, NYU_SIZE, 1000)
        lines["train"].append(f"/kitchen_0028b/rgb_{i}.jpg /kitchen_0028b/d_{i}.png")
    for i in range(test):
        folder = root / "official_splits/test/bathroom"
        write_pair(folder / f"rgb_{i}.jpg", folder / f"d_{i}.png", i, NYU_SIZE, 1000)
        lines["test"].append(f"bathroom/rgb_{i}.jpg bathroom/d_{i}.png")
    for split, found in lines.items():
        path = root / f"nyudepthv2_{split}_files_with_gt.txt"
        path.write_text("".join(f"{line} 518.8579\n" for line in found))
    return root


def write_nyu_mat(root: Path, frames=5) -> Path:
    """Frames 1, 3 and 5 train, 2 and 4 test; in-painted depth has no hole."""
    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        images = [picture(NYU_SIZE, i).transpose(2, 1, 0) for i in range(frames)]
        raw = [depth_of(i, NYU_SIZE).T for i in range(frames)]
        file["images"] = np.stack(images)
        file["rawDepths"] = np.stack(raw)
        file["depths"] = np.stack([np.where(d == 0, 9, d) for d in raw])
    numbers = np.arange(1, frames + 1, dtype=np.uint16)[:, None]
    split = {"trainNdxs": numbers[::2], "testNdxs": numbers[1::2]}
    savemat(root / "splits.mat", split)
    return root


def write_nyu_h5(root: Path, train=3, test=2) -> Path:
    for folder, count in (("train/kitchen_0001", train), ("val/official", test)):
        (root / folder).mkdir(parents=True)
        for i in range(count):
            with h5py.File(root / folder / f"{i:05d}.h5", "w") as file:
                file["rgb"] = picture(NYU_SIZE, i).transpose(2, 0, 1)
                file["depth"] = depth_of(i, NYU_SIZE) + 0.5
    return root


def write_kitti(
    root: Path,
    train=3,
    test=3,
    *,
    size=KITTI_SIZE,
    annotated="data_depth_annotated/{}",
    parts=("train", "val"),
) -> Path:
    """Drives whose truth lies in either part, and one test line without any."""
    lines = {"train": [], "test": []}
    for split, count, day in (("train", train, "26"), ("test", test, "28")):
        for i in range(count):
            date = f"2011_09_{day}"
            drive = f"{date}_drive_000{i}_sync"
            image = f"{date}/{drive}/image_02/data/{i:010d}.png"
            depth = f"{drive}/proj_depth/groundtruth/image_02/{i:010d}.png"
            place = root / annotated.format(parts[i % len(parts)])
            write_pair(root / image, place / depth, i, size, 256)
            extra = " right.png None" if i == 1 else ""
            lines[split].append(f"{image} {depth} 721.5377{extra}")
    lines["test"].insert(1, "2011_09_28/none.png None 721.5377")
    for split, found in lines.items():
        path = root / f"kitti_eigen_{split}_files_with_gt.txt"
        path.write_text("\n".join(found) + "\n")
    return root
