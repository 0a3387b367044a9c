"""Whole or not at all, also where a process is killed in the middle."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from datamodules.errors import DataError
from datamodules.files.whole import whole_file, whole_folder, write_bytes

REPO = Path(__file__).parents[3]
WRITER = """
import sys, time
from pathlib import Path
from datamodules.files.whole import whole_file, whole_folder
name = Path(sys.argv[1])
with whole_folder(name) as new, whole_file(name.with_suffix(".txt")) as part:
    (new / "half").write_text("half")
    part.write_text("half")
    print("half", flush=True)
    time.sleep(60)
"""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_killed__leaves_nothing_that_is_read_and_the_next_writing_takes_it_away(
    tmp_path,
):
    folder = tmp_path / "out[1]"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, folder], cwd=REPO, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"half\n"
    before = names(tmp_path)
    assert all(name.startswith(".") and name.endswith(".part") for name in before)
    # What a living process writes is left to it.
    with whole_folder(folder) as new:
        (new / "other").touch()
    assert names(tmp_path) == before | {"out[1]"}
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert names(tmp_path) == before | {"out[1]"}
    with whole_folder(folder) as new:
        (new / "whole").touch()
    write_bytes(folder.with_suffix(".txt"), b"whole")
    assert names(tmp_path) == {"out[1]", "out[1].txt"}
    assert names(folder) == {"other", "whole"}


@pytest.mark.parametrize("there", ["nothing", "empty", "link to empty"])
def test_folder__appears_in_one_step(tmp_path, monkeypatch, there):
    folder = tmp_path / "out"
    if there == "empty":
        folder.mkdir(mode=0o750)
    if there == "link to empty":
        (tmp_path / "disk").mkdir()
        folder.symlink_to("disk")
    monkeypatch.setattr("datamodules.files.whole._move", None)
    with whole_folder(folder) as new:
        (new / "sub").mkdir()
        for name in ("a", "sub/b"):
            (new / name).touch(0o600)
        assert not folder.exists() or not any(folder.iterdir())
    assert names(folder) == {"a", "sub"}
    umask = os.umask(0o022)
    os.umask(umask)
    assert (folder / "sub/b").stat().st_mode & 0o777 == 0o666 & ~umask
    if there == "empty":
        assert folder.stat().st_mode & 0o777 == 0o750
    assert folder.is_symlink() == (there == "link to empty")


def test_folder__that_holds_something_keeps_it(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text("old")
    with whole_folder(folder) as new:
        (new / "a").write_text("new")
    assert (folder / "a").read_text() == "new"
    assert (folder / "b").read_text() == "old"
    assert names(tmp_path) == {"out"}


def test_folder__one_works_in_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with whole_folder(Path()) as new:
        (new / "a").touch()
    assert Path("a").is_file()


def test_error__leaves_what_was_there(tmp_path):
    (tmp_path / "a").write_text("old")

    def disk_full():
        with whole_file(tmp_path / "a") as part, whole_folder(tmp_path / "b") as new:
            part.write_text("new")
            (new / "c").touch()
            raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match="a cannot be written"):
        disk_full()
    assert names(tmp_path) == {"a"}
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize("there", [True, False], ids=["there", "dangling"])
def test_whole_folder__follows_a_link(tmp_path, there):
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target, target_is_directory=True)
    if there:
        target.mkdir()
    with whole_folder(link) as new:
        (new / "file").write_text("whole")
    assert link.is_symlink()
    assert (target / "file").read_text() == "whole"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "target"]


def test_whole_folder__names_what_was_asked_for(tmp_path):
    (tmp_path / "file").touch()
    asked = tmp_path / "file" / "folder"
    with pytest.raises(DataError, match="file/folder cannot be written"):
        whole_folder(asked).__enter__()
