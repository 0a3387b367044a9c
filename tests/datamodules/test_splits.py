"""Which frames train and which are held out."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules import FolderDataModule
from datamodules.errors import DataError
from datamodules.files.pairs import Labels
from datamodules.splits import held_out


def module(root, **options) -> FolderDataModule:
    given = {"depth_scale": 1, "max_depth": 10, "image_size": (28, 42), **options}
    return FolderDataModule(str(root), **given)


def names(data, split) -> list[str]:
    pairs = data.frames(split).pairs
    return [pair.image.as_posix().split("images/")[1] for pair in pairs]


@pytest.fixture
def scenes(tmp_path):
    """Scenes a, b, c and d of 2, 3, 4 and 5 frames, and a table of them."""
    lines = ["image,depth,scene,split,Lens"]
    for scene, count in zip("abcd", (2, 3, 4, 5), strict=True):
        for i in range(count):
            for part, suffix in (("images", "jpg"), ("depths", "npy")):
                path = tmp_path / part / scene / f"{i}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            split = {"a": "Val", "b": "testing"}.get(scene, "train")
            lens = "wide" if scene in "ab" else "tele"
            files = f"images/{scene}/{i}.jpg,depths/{scene}/{i}.npy"
            lines.append(f"{files},{scene},{split},{lens}")
    (tmp_path / "frames.csv").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.parametrize(
    ("root", "split_by", "group"),
    [
        ("", "folder", lambda name: name[0]),
        ("frames.csv", "folder", lambda name: name[0]),
        ("frames.csv", "column:scene", lambda name: name[0]),
        ("frames.csv", "column:lens", lambda name: name[0] in "ab"),
    ],
)
def test_split__groups_stay_together(scenes, root, split_by, group):
    for seed in range(5):
        data = module(scenes / root, split_by=split_by, val_fraction=0.3, seed=seed)
        train, val = names(data, "train"), names(data, "val")
        assert len(train) + len(val) == 14
        assert not {*map(group, train)} & {*map(group, val)}
        again = module(scenes / root, split_by=split_by, val_fraction=0.3, seed=seed)
        assert names(again, "test") == val


def test_split__column_of_a_table_is_the_split_itself(scenes):
    data = module(scenes / "frames.csv")
    assert {name[0] for name in names(data, "train")} == {"c", "d"}
    assert {name[0] for name in names(data, "val")} == {"a"}
    assert {name[0] for name in names(data, "test")} == {"b"}
    table = scenes / "frames.csv"
    table.write_text(table.read_text().replace("Val", "train"))
    assert {name[0] for name in names(module(table), "val")} == {"b"}
    by_frame = module(table, split_by="frame", val_fraction=0.5)
    with pytest.warns(UserWarning, match="both sides"):
        assert len(names(by_frame, "train")) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split_by": "scene"}, "split_by 'scene' is not known; use frame, folder, or"),
        ({"split_by": "column:"}, "is not known"),
        ({"split_by": "folder", "val_root": "x"}, "no effect beside val_root"),
        ({"split_by": "column:room"}, "no column 'room'; it has image, depth, scene"),
        ({"split_by": "column:split", "edit": ("train", "trian")}, "says trian in the"),
        ({"edit": ("testing", "fold 2")}, "says fold 2 in the column 'split'; use"),
        ({"edit": ("train", "val")}, "has none for train"),
        ({"split_by": "column:lens", "edit": ("tele", "wide")}, "in one group .wide"),
    ],
)
def test_split__what_cannot_be_is_named(scenes, options, message):
    table = scenes / "frames.csv"
    if edit := options.pop("edit", None):
        table.write_text(table.read_text().replace(*edit))
    with pytest.raises(DataError, match=message):
        module(table, **options).frames("train")


def test_split__a_folder_has_no_columns(scenes):
    with pytest.raises(DataError, match="is a folder and has no column 'scene'"):
        module(scenes, split_by="column:scene").frames("train")


def test_split__neighbours_on_both_sides_are_warned_of_once(scenes):
    data = module(scenes, val_fraction=0.5)
    match = r"of 4 folders .* --data.split_by folder"
    with pytest.warns(UserWarning, match=match) as warned:
        [data.frames(split) for split in ("train", "val")]
    assert len(warned) == 1


def test_split__rows_of_one_picture_are_on_one_side(scenes):
    table = scenes / "frames.csv"
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *rows, *rows[:9]]))
    data = module(table, val_fraction=0.5, split_by="frame")
    with pytest.warns(UserWarning, match="has 9 rows whose picture another row has"):
        train, val = names(data, "train"), names(data, "val")
    assert len(train) + len(val) == 23
    assert not {*train} & {*val}


def test_split__one_picture_in_two_spellings_is_on_one_side(scenes):
    table = scenes / "frames.csv"
    header, *rows = table.read_text().splitlines()
    again = [f"./images/../{row}" for row in rows]
    table.write_text("\n".join([header, *rows, *again]))
    data = module(table, val_fraction=0.5, split_by="frame")
    with pytest.warns(UserWarning, match="has 14 rows whose picture another row has"):
        train, val = ({*map(Path.resolve, images(data, s))} for s in ("train", "val"))
    assert not train & val


def images(data, split) -> list[Path]:
    return [pair.image for pair in data.frames(split).pairs]


def test_shared__pictures_of_a_table_or_of_val_root_are_found(scenes):
    assert module(scenes, split_by="folder").trained_and_held_out() == []
    inside = module(scenes, val_root=str(scenes / "images" / ".."))
    assert len(inside.trained_and_held_out()) == 14
    table = scenes / "frames.csv"
    text = table.read_text()
    table.write_text(f"{text}\nimages/c/1.jpg,depths/c/1.npy,c,val,tele")
    assert [Path(p).name for p in module(table).trained_and_held_out()] == ["1.jpg"]
    # By another column, the picture is in one scene alone.
    assert module(table, split_by="column:scene").trained_and_held_out() == []


def test_resume__frames_that_were_added_are_warned_of(scenes):
    options = {"split_by": "folder", "val_fraction": 0.3}
    before = module(scenes, **options).state_dict()
    module(scenes, **options).load_state_dict(before)
    module(scenes, **{**options, "seed": 3}).load_state_dict(before)
    for scene in "efgh":
        for part, suffix in (("images", "jpg"), ("depths", "npy")):
            path = scenes / part / scene / f"0.{suffix}"
            path.parent.mkdir()
            path.touch()
    now = module(scenes, **options)
    assert now.split_identity() != before["held_out"][""]
    with pytest.warns(UserWarning, match="others are held out than when"):
        now.load_state_dict(before)


@given(
    st.lists(st.integers(1, 30), min_size=2, max_size=12),
    st.floats(0.01, 0.99),
    st.integers(0, 9),
)
def test_held_out__whole_groups_near_the_fraction(sizes, fraction, seed):
    words = [f"{i:02d}" for i, size in enumerate(sizes) for _ in range(size)]
    chosen = held_out(len(words), fraction, seed, Labels.of(words))
    assert 0 < chosen.sum() < len(words)
    parts = [set(np.array(words)[side]) for side in (chosen, ~chosen)]
    assert not parts[0] & parts[1]
    # One group more or less than the fraction, unless only one can be held out or left.
    if min(map(len, parts)) > 1:
        assert abs(chosen.sum() - fraction * len(words)) <= max(sizes)
    # The same groups whatever the order of the frames.
    back = held_out(len(words), fraction, seed, Labels.of(words[::-1]))
    np.testing.assert_array_equal(back[::-1], chosen)
