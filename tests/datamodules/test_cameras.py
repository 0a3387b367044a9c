"""Intrinsics reach a frame from wherever they stand."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from datamodules import FolderDataModule, KITTIDataModule, NYUDataModule
from datamodules.errors import DataError
from datamodules.files.cameras import OneCamera
from datamodules.files.hdf5 import H5Frames
from tests.conftest import write_rgbd
from tests.datamodules.layouts import write_kitti, write_nyu_h5

CALIBRATION = """calib_time: 09-Jan-2012 13:57:47
P_rect_00: 1 0 0 0 0 1 0 0 0 0 1 0
P_rect_02: 721.5 0 609.5 44.8 0 722.5 172.8 0.2 0 0 1 0.002
P_rect_03: 700.5 0 600.5 -3.3 0 701.5 170.8 2.1 0 0 1 0.002
"""


def folder(root, **options):
    given = {"depth_scale": 1000, "max_depth": 10, "val_fraction": 0.5, **options}
    return FolderDataModule(str(root), **given).frames("train")


def four(frame):
    k = frame.intrinsics
    return [k[0, 0], k[1, 1], k[0, 2], k[1, 2]]


def test_kitti__calibration_file_or_the_lists_focal_length(tmp_path):
    root = write_kitti(tmp_path)
    (root / "2011_09_26/calib_cam_to_cam.txt").write_text(CALIBRATION)
    data = KITTIDataModule(str(root))
    assert four(data.frames("train")[0]) == [721.5, 722.5, 609.5, np.float32(172.8)]
    # That day has no file.
    expected = [721.5377, 721.5377, (1242 - 1) / 2, (375 - 1) / 2]
    assert four(data.frames("test")[0]) == pytest.approx(expected)
    (root / "2011_09_26/calib_cam_to_cam.txt").write_text("P_rect_02: 1 2 3")
    with pytest.raises(DataError, match="no P_rect_02 of twelve numbers"):
        data.frames("train")


def test_nyu_h5__frames_of_another_size_have_no_known_camera(tmp_path):
    root = write_nyu_h5(tmp_path)
    frames = NYUDataModule(str(root), layout="h5").frames("train")
    assert frames[0].intrinsics[0, 0] == pytest.approx(518.8579)
    cut = H5Frames(frames.files, frames.intrinsics, (240, 320))
    assert cut[0].intrinsics is None


def test_folder__camera_file_of_the_scene_goes_before_the_roots(tmp_path):
    for name in ("kitchen", "hall"):
        write_rgbd(tmp_path / name, 2)
    (tmp_path / "camera.json").write_text(json.dumps({"fx": 50}))
    camera = {"fx": 40, "fy": 41, "cx": 20, "cy": 21}
    (tmp_path / "hall/camera.json").write_text(json.dumps(camera))
    options = {"split_by": "folder"}
    frames = [*folder(tmp_path, **options)]
    data = FolderDataModule(str(tmp_path), 1000, 10, val_fraction=0.5, **options)
    frames += [*data.frames("val")]
    found = {frame.path.split("/")[-4]: four(frame) for frame in frames}
    rows, cols = frames[0].depth.shape
    assert found["hall"] == [40, 41, 20, 21]
    assert found["kitchen"] == [50, 50, (cols - 1) / 2, (rows - 1) / 2]


@pytest.mark.parametrize(
    "content", ['{"fy": 3}', '{"fx": 0}', "[1]", "{", '{"fx": "a"}']
)
def test_camera_file__that_says_something_else_is_named(tmp_path, content):
    write_rgbd(tmp_path, 2)
    (tmp_path / "camera.json").write_text(content)
    with pytest.raises(DataError, match=r"camera\.json"):
        folder(tmp_path)


def test_folder__option_goes_before_all_and_exif_comes_last(tmp_path):
    root = write_rgbd(tmp_path, 2)
    for path in (root / "images/a").iterdir():
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0xA405] = 28
        Image.open(path).save(path, exif=exif)
    frame = folder(root)[0]
    rows, cols = frame.depth.shape
    by_exif = 28 / np.hypot(36, 24) * np.hypot(rows, cols)
    assert frame.intrinsics[0, 0] == pytest.approx(by_exif, rel=1e-5)
    (root / "camera.json").write_text('{"fx": 33}')
    assert folder(root)[0].intrinsics[0, 0] == 33
    assert folder(root, focal_px=44)[0].intrinsics[0, 0] == 44
    wide = folder(root, fov_deg=90)[0].intrinsics
    assert wide[0, 0] == pytest.approx(cols / 2)
    assert not np.isnan(wide).any()


def test_table__fx_alone_is_enough(tmp_path):
    root = write_rgbd(tmp_path, 2)
    images = sorted((root / "images/a").iterdir())
    depths = sorted((root / "depths/a").iterdir())
    rows = [
        f"{image.relative_to(root)},{depth.relative_to(root)},{fx}"
        for image, depth, fx in zip(images, depths, (60, 61), strict=True)
    ]
    (root / "a.csv").write_text("\n".join(["image,depth,fx", *rows]))
    frame = folder(root / "a.csv")[0]
    shape = cv2.imread(str(images[0])).shape
    assert four(frame)[0] in (60, 61)
    assert four(frame)[2:] == [(shape[1] - 1) / 2, (shape[0] - 1) / 2]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"focal_px": 1, "fov_deg": 1}, "one thing twice"),
        ({"focal_px": 0}, "above 0"),
        ({"focal_px": float("nan")}, "above 0"),
        ({"fov_deg": 180}, "between 0 and 180"),
    ],
)
def test_one_camera__that_cannot_be(given, said):
    with pytest.raises(DataError, match=said):
        OneCamera(**given)
