"""Pictures that EXIF turns, beside depth maps that nothing turns."""

import warnings

import cv2
import numpy as np
import pytest
from PIL import Image

from datamodules.errors import DataError
from datamodules.folder import FolderDataModule


def write(root, orientation, depth_size, suffix=".jpg", size=(30, 42)):
    """Two frames of stored `size` (rows, cols)."""
    for i in range(2):
        for folder in ("images", "depths"):
            (root / folder).mkdir(exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = orientation
        pixels = np.random.default_rng(i).integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"images/{i}{suffix}", exif=exif)
        depth = np.full(depth_size, 2000, np.uint16)
        assert cv2.imwrite(str(root / f"depths/{i}.png"), depth)


def frames(root, **more):
    data = FolderDataModule(str(root), 1000, 10, val_fraction=0.5, **more)
    return data.frames("train")


def test_turned__sizes_that_differ_for_it_name_exif(tmp_path):
    write(tmp_path, 6, depth_size=(30, 42))
    with pytest.raises(DataError, match=r"EXIF orientation \(6\): set exif: ignore"):
        frames(tmp_path)[0]
    assert frames(tmp_path, exif="ignore")[0].image.shape == (30, 42, 3)


def test_turned__ignored_where_depth_is_upright_names_exif(tmp_path):
    write(tmp_path, 8, depth_size=(42, 30))
    with pytest.raises(DataError, match=r"EXIF orientation \(8\): set exif: apply"):
        frames(tmp_path, exif="ignore")[0]


@pytest.mark.parametrize("orientation", [2, 3, 5, 6])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
def test_turned__of_equal_size_is_warned_of_once(tmp_path, orientation, suffix):
    turned = (42, 30) if orientation >= 5 else (30, 42)
    write(tmp_path, orientation, turned, suffix)
    found = frames(tmp_path)
    with pytest.warns(UserWarning, match=r"is turned by its EXIF orientation"):
        assert found[0].image.shape[:2] == turned
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found[0]


def test_upright__or_ignored_is_not_warned_of(tmp_path):
    write(tmp_path, 1, depth_size=(30, 42))
    frames(tmp_path)[0]
    write(tmp_path, 3, depth_size=(30, 42))
    frames(tmp_path, exif="ignore")[0]


def test_other_size__is_not_blamed_on_exif(tmp_path):
    write(tmp_path, 6, depth_size=(43, 30))
    with pytest.raises(DataError, match="register the two to one size first"):
        frames(tmp_path)[0]


def test_pictures__of_every_kind_train(tmp_path):
    for suffix in (".avif", ".gif", ".BMP"):
        folder = tmp_path / suffix
        folder.mkdir()
        write(folder, 1, depth_size=(30, 42), suffix=suffix)
        (folder / "images/._0.jpg").write_bytes(b"\0\5\x16\7")
        assert frames(folder)[0].image.shape == (30, 42, 3)
