import pytest

from datamodules.errors import DataError
from datamodules.files.whole import whole_folder


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
