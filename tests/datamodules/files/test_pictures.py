"""Which pictures words mean, and under which names they are written."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datamodules.errors import DataError
from datamodules.files.pictures import find_images
from tests.conftest import REAL_DATA, needs_real_data


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names(*given) -> list[str]:
    return [picture.name for picture in find_images([str(g) for g in given]).pictures]


def test_folder__finds_all_kinds_in_any_case_and_nothing_hidden(tmp_path):
    wanted = ["a.JPG", "b.tiff", "c.Avif", "d/e.gif", "d/f.bmp", "g.webp", "h.heic"]
    touch(tmp_path, *wanted, "._a.JPG", ".DS_Store", ".thumbs/a.jpg", "notes.md")
    touch(tmp_path, "d/.hidden/a.png", "d/._f.bmp")
    (tmp_path / "folder.png").mkdir()
    assert sorted(names(tmp_path)) == sorted(wanted)


def test_hidden__is_found_where_it_is_named_or_lies_in_what_is_named(tmp_path):
    touch(tmp_path, ".cache/in/a.png", ".b.png")
    assert names(tmp_path / ".cache/in") == ["a.png"]
    assert names(tmp_path / ".b.png") == [".b.png"]


def test_folder__links_to_folders_are_followed_once(tmp_path):
    touch(tmp_path, "in/a.png", "elsewhere/b.png")
    (tmp_path / "in/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/round").symlink_to(tmp_path / "in")
    (tmp_path / "in/gone.png").symlink_to(tmp_path / "nothing.png")
    assert names(tmp_path / "in") == ["a.png", "gone.png", "more/b.png"]


def test_folder__that_may_not_be_looked_into_is_named(tmp_path, monkeypatch):
    touch(tmp_path, "a.png", "closed/b.png")
    scandir = os.scandir

    def closed(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(DataError, match=r"closed cannot be looked into \(Permission"):
        names(tmp_path)


segments = st.sampled_from(["a", "b", "c d"])
relative = st.lists(segments, min_size=1, max_size=4).map("/".join)


@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sets(relative, min_size=1, max_size=6), st.sampled_from(["list", "files", "*"])
)
def test_names__of_a_list_files_or_a_pattern_never_collide(
    tmp_path_factory, places, how
):
    """They are below the deepest folder that all have in common."""
    root = tmp_path_factory.mktemp("in")
    paths = sorted(f"{place}/1.png" for place in places)
    touch(root, *paths)
    (root / "list.txt").write_text("\n".join(paths))
    given_words = {
        "list": [root / "list.txt"],
        "files": [root / path for path in paths],
        "*": [f"{root}/**/*.png"],
    }[how]
    common = os.path.commonpath([Path(path).parent for path in paths])
    assert sorted(names(*given_words)) == [os.path.relpath(p, common) for p in paths]


KITTI = "2011_09_26/2011_09_26_drive_0002_sync"
LISTS = {
    "three columns": f"{KITTI}/image_02/data/0000000069.png proj/a.png 721.5377",
    "no depth": f"{KITTI}/image_02/data/0000000069.png None 721.5377",
    "five columns": f"{KITTI}/image_02/data/0000000069.png a.png 7.5 b.png c.png",
    "two columns": f"{KITTI}/image_02/data/0000000069.png a.png",
    "leading slash": f"/{KITTI}/image_02/data/0000000069.png /a.png 518.8579",
    "another machine": f"/mnt/bn/Kitti/raw_data/{KITTI}/image_02/data/0000000069.png a",
    "monodepth2": f"{KITTI} 69 l",
    "one column": f"{KITTI}/image_02/data/0000000069.png",
}


@pytest.mark.parametrize("ending", [".png", ".jpg"])
@pytest.mark.parametrize("below", ["", "raw", "kitti/raw_data"])
@pytest.mark.parametrize("form", LISTS)
def test_list__of_the_field(tmp_path, form, below, ending):
    """Wherever the drives lie below the list's folder, also converted to JPEG."""
    frames = (f"{KITTI}/image_02/data/00000000{n}" for n in (69, 54))
    touch(tmp_path / below, *(f"{frame}{ending}" for frame in frames))
    lines = [LISTS[form], "", LISTS[form].replace("69", "54")]
    (tmp_path / "split.txt").write_text("\n".join(lines))
    found = find_images([str(tmp_path / "split.txt")]).pictures
    assert [p.name for p in found] == [f"0000000069{ending}", f"0000000054{ending}"]
    assert all(picture.path.is_file() for picture in found)


def test_list__of_tum_and_of_names_with_spaces(tmp_path):
    touch(tmp_path, "rgb/1305.1758.png", "rgb/1305.2758.png", "my photo 1.png")
    (tmp_path / "rgb.txt").write_text(
        "# color images\n# timestamp filename\n1305.1758 rgb/1305.1758.png\n"
        "1305.2758 rgb/1305.2758.png 1305.3 depth/1305.3.png\n"
    )
    assert names(tmp_path / "rgb.txt") == ["1305.1758.png", "1305.2758.png"]
    (tmp_path / "list.txt").write_text("my photo 1.png\nrgb\n")
    assert names(tmp_path / "list.txt") == [
        "my photo 1.png",
        "rgb/1305.1758.png",
        "rgb/1305.2758.png",
    ]


def test_list__without_any_of_its_pictures_or_with_other_lines_is_refused(tmp_path):
    source = tmp_path / "list.txt"
    source.write_text("a/1.png\n")
    with pytest.raises(DataError, match=r"none of a/1\.png is there"):
        names(source)
    source.write_text("a/1.png\nsome words only\n")
    with pytest.raises(DataError, match=r"line 2 names no picture: 'some words only'"):
        names(source)
    touch(tmp_path, "a/2.png")
    source.write_text("a/1.png\na/2.png\n")
    assert names(source) == ["1.png", "2.png"]  # reading the first will name it


@needs_real_data
def test_list__official_ones_are_understood(tmp_path):
    for source in sorted((REAL_DATA / "splits").glob("*_with_gt.txt")):
        lines = source.read_text().splitlines()[:60]
        wanted = [line.split()[0].lstrip("/") for line in lines]
        touch(tmp_path / source.stem, *wanted)
        (tmp_path / source.stem / "list.txt").write_text("\n".join(lines))
        found = find_images([str(tmp_path / source.stem / "list.txt")]).pictures
        assert [p.path for p in found] == [tmp_path / source.stem / w for w in wanted]


def test_video__frames_have_the_videos_size(tmp_path):
    path = tmp_path / "clip.avi"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (120, 48))
    for _ in range(3):
        video.write(np.zeros((48, 120, 3), np.uint8))
    video.release()
    found = find_images([str(path)]).pictures
    assert [(p.name, p.frame, p.frame_size) for p in found] == [
        (f"clip.avi/{i:06d}", i, (48, 120)) for i in range(3)
    ]
