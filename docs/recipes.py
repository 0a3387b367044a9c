"""Folders as cameras leave them, for the commands of the pages, and their pictures.

    python -m docs.recipes DIR [--pictures docs/pictures]

Rendered rooms and streets, stored the way each recipe of `your_camera.md` describes.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.rendering.film import Film
from datamodules.rendering.pictures import Place, picture

Rgb = NDArray[np.uint8]
Depth = NDArray[np.float32]
COUNT = 6
"""Frames of a folder."""
FILM = Film(noise=(0.0, 0.01))


def frames(
    place: Place, size: tuple[int, int], count: int = COUNT, seed: int = 0
) -> Iterator[tuple[Rgb, Depth]]:
    """Rendered ones, always the same."""
    for i in range(count):
        rgb, depth, _ = picture(place, size, FILM, np.random.default_rng((seed, i)))
        yield rgb, depth


def write(path: Path, image: NDArray[np.generic]) -> None:
    """RGB or 16-bit depth, its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = image[..., ::-1] if image.ndim == 3 else image
    if not cv2.imwrite(str(path), np.ascontiguousarray(shown)):
        raise OSError(f"{path} cannot be written")


def stored(depth: Depth, scale: float, furthest: float) -> NDArray[np.uint16]:
    """Whole numbers of `scale` to a metre; 0 beyond what the sensor reaches."""
    known = np.where(depth <= furthest, depth, 0)
    return np.rint(known * scale).astype(np.uint16)


def phone(root: Path) -> None:
    """Large pictures, small depth."""
    for i, (rgb, depth) in enumerate(frames("room", (256, 192))):
        large = cv2.resize(rgb, (1440, 1920), interpolation=cv2.INTER_CUBIC)
        write(root / f"rgb/{i:06d}.jpg", np.asarray(large))
        write(root / f"depth/{i:06d}.png", stored(depth, 1000, 5))


def realsense(root: Path) -> None:
    """What only one of two cameras sees is unknown."""
    for i, (rgb, depth) in enumerate(frames("table", (240, 320), seed=1)):
        disparity = 24 / np.maximum(depth, 0.2)
        jump = np.diff(disparity, axis=1, prepend=disparity[:, :1]) > 0.8
        shadow = cv2.dilate(jump.astype(np.uint8), np.ones((3, 9), np.uint8))
        write(root / f"color/{i:06d}.png", rgb)
        write(root / f"depth/{i:06d}.png", stored(depth * (shadow == 0), 1000, 8))


def tum(root: Path) -> None:
    """A sequence that is matched by time."""
    lists: dict[str, list[str]] = {"rgb": [], "depth": []}
    rng = np.random.default_rng(0)
    for i, (rgb, depth) in enumerate(frames("room", (240, 320), seed=2)):
        holes = cv2.resize(rng.random((20, 27)).astype(np.float32), (320, 240)) > 0.75
        moments = {"rgb": 1305031452.79 + i / 30, "depth": 1305031452.80 + i / 30}
        written = {"rgb": rgb, "depth": stored(depth * ~holes, 5000, 8)}
        for kind, moment in moments.items():
            name = f"{kind}/{moment:.6f}.png"
            write(root / name, written[kind])
            lists[kind].append(f"{moment:.6f} {name}\n")
    for kind, lines in lists.items():
        (root / f"{kind}.txt").write_text("# timestamp filename\n" + "".join(lines))


def scans(root: Path) -> None:
    """A folder a scene."""
    for i, (rgb, depth) in enumerate(frames("room", (240, 320), 9, seed=3)):
        scene = root / f"scene{i // 3:04d}_00"
        write(scene / f"color/{i % 3}.jpg", rgb)
        write(scene / f"depth/{i % 3}.png", stored(depth, 1000, 10))


def car(root: Path) -> None:
    """Lines of a LiDAR, in the lower part."""
    for i, (rgb, depth) in enumerate(frames("street", (188, 620), seed=4)):
        rows, cols = np.mgrid[: depth.shape[0], : depth.shape[1]]
        lines = (rows % 3 == 0) & (cols % 2 == 0) & (rows > 60)
        write(root / f"images/{i:06d}.png", rgb)
        write(root / f"depths/{i:06d}.png", stored(depth * lines, 256, 80))


def points(root: Path) -> None:
    """A few hundred pixels that points fall on."""
    rng = np.random.default_rng(0)
    for i, (rgb, depth) in enumerate(frames("street", (240, 320), seed=5)):
        seen = rng.random(depth.shape) < 0.02
        write(root / f"images/{i:06d}.png", rgb)
        write(root / f"depths/{i:06d}.png", stored(depth * seen, 256, 30))


def plain(root: Path) -> None:
    """Frames as the page on one's own frames has them."""
    for i, (rgb, depth) in enumerate(frames("room", (126, 168), 12, seed=6)):
        write(root / f"images/{i:04d}.png", rgb)
        write(root / f"depths/{i:04d}.png", stored(depth, 1000, 10))


def photographs(root: Path) -> None:
    """Pictures without depth."""
    for i, (rgb, _) in enumerate(frames("room", (126, 168), 2, seed=7)):
        write(root / f"{i:04d}.jpg", rgb)


FOLDERS: dict[str, Callable[[Path], None]] = {
    "PHONE": phone,
    "REALSENSE": realsense,
    "TUM": tum,
    "SCANS": scans,
    "CAR": car,
    "POINTS": points,
    "FRAMES": plain,
    "PHOTOGRAPHS": photographs,
}
SHOWN = {
    "phone": ("PHONE", "rgb/000003.jpg", "depth/000003.png"),
    "realsense": ("REALSENSE", "color/000001.png", "depth/000001.png"),
    "tum": ("TUM", "rgb/*.png", "depth/*.png"),
    "scannet": ("SCANS", "scene0001_00/color/0.jpg", "scene0001_00/depth/0.png"),
    "car": ("CAR", "images/000001.png", "depths/000001.png"),
    "points": ("POINTS", "images/000001.png", "depths/000001.png"),
}


def side_by_side(image: Path, depth: Path) -> Rgb:
    """BGR of a picture and of its depth map as it is stored."""
    left = cv2.imread(str(image))
    right = cv2.imread(str(depth), cv2.IMREAD_UNCHANGED)
    assert left is not None
    assert right is not None
    known = right > 0
    if known.mean() < 0.2:  # single pixels would not be seen
        right = cv2.dilate(right, np.ones((2, 2), np.uint8))
        known = right > 0
    level = np.log(np.maximum(right, 1).astype(np.float32))
    low, high = np.quantile(level[known], (0.01, 0.99))
    shade = (255 * (1 - np.clip((level - low) / (high - low), 0, 1))).astype(np.uint8)
    coloured = np.asarray(cv2.applyColorMap(shade, cv2.COLORMAP_INFERNO))
    coloured[~known] = 0
    tall = 240 if left.shape[1] < 3 * left.shape[0] else 150
    both = [
        cv2.resize(one, (round(one.shape[1] * tall / one.shape[0]), tall),
                   interpolation=how)
        for one, how in ((left, cv2.INTER_AREA), (coloured, cv2.INTER_NEAREST))
    ]  # fmt: skip
    gap = np.full((tall, 8, 3), 255, np.uint8)
    return np.asarray(np.hstack([both[0], gap, both[1]]), np.uint8)


def main() -> None:
    """Write the folders, and perhaps the pictures."""
    parser = argparse.ArgumentParser("python -m docs.recipes", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=Path, help="also what the pages show")
    options = parser.parse_args()
    for name, make in FOLDERS.items():
        make(options.folder / name)
    if options.pictures is None:
        return
    options.pictures.mkdir(parents=True, exist_ok=True)
    for name, (folder, image, depth) in SHOWN.items():
        where = options.folder / folder
        first, second = (sorted(where.glob(p))[0] for p in (image, depth))
        shown = side_by_side(first, second)
        cv2.imwrite(str(options.pictures / f"{name}.png"), shown)


if __name__ == "__main__":
    main()
