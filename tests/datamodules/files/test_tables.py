"""CSVs as spreadsheets and scripts write them."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.errors import DataError
from datamodules.files.lists import listing
from datamodules.files.lists.tables import read_table
from datamodules.files.pairs import PairFrames

NAMES = ["a/0.png", "a/1.png", "b c/2, left.png", "ü/3;4|5.png"]
CODINGS = ["utf-8", "utf-8-sig", "utf-16"]


def write_files(root: Path, names=NAMES) -> None:
    for part in ("images", "depths"):
        for name in names:
            path = root / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def quoted(cell: str, delimiter: str, always: bool) -> str:
    if always or delimiter in cell or '"' in cell:
        return '"' + cell.replace('"', '""') + '"'
    return cell


@st.composite
def tables(draw):
    """A table, its bytes, and what its lines say."""
    delimiter = draw(st.sampled_from(",;\t|"))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    case = draw(st.sampled_from([str.lower, str.upper, str.title]))
    blank = draw(st.sampled_from(["", " ", "  "]))
    always = draw(st.booleans())
    columns = draw(st.permutations(["image", "depth", "depth_scale", "fx", "note"]))
    empty = st.sampled_from(["", "   ", delimiter * 3])
    lines = draw(st.lists(empty, max_size=2))
    lines.append(delimiter.join(blank + case(name) + blank for name in columns))
    said = []
    for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5)):
        lines += draw(st.lists(empty, max_size=2))
        cells = {"image": f"images/{name}", "depth": f"depths/{name}"}
        cells["depth_scale"] = draw(st.sampled_from(["", "256", "1e3", "0.5"]))
        cells["fx"] = draw(st.sampled_from(["", "500.5"]))
        cells["note"] = draw(st.sampled_from(["", 'says "hello"']))
        text = [blank + quoted(cells[c], delimiter, always) for c in columns]
        lines.append(delimiter.join(text))
        said.append(cells)
    text = end.join(lines) + draw(st.sampled_from(["", end]))
    return text.encode(draw(st.sampled_from(CODINGS))), said


@pytest.fixture(scope="module")
def root():
    with TemporaryDirectory() as folder:
        write_files(Path(folder))
        yield Path(folder)


@given(case=tables())
def test_table__any_dialect_is_read(root, case):
    content, said = case
    table = root / "frames.csv"
    table.write_bytes(content)
    pairs = read_table(table, 1000)
    assert len(pairs) == len(said)
    for pair, cells in zip(pairs, said, strict=True):
        assert pair.image == root / cells["image"]
        assert pair.depth == root / cells["depth"]
        assert pair.depth_scale == float(cells["depth_scale"] or 1000)
        assert (pair.intrinsics is None) == (not cells["fx"])
        if cells["fx"]:
            fx, fy, cx, cy = pair.intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]]
            assert (fx, fy) == (500.5, 500.5)
            assert math.isnan(cx)
            assert math.isnan(cy)


def row(scale="", fx="", fy="", cx="", name="a/0.png"):
    return f"images/{name},depths/{name},{scale},{fx},{fy},{cx}\n"


HEADER = "image,depth,depth_scale,fx,fy,cx\n"
BAD_NUMBERS = ["0", "-1000", "nan", "inf", "wide", "1_000"]


@pytest.mark.parametrize("number", BAD_NUMBERS)
@pytest.mark.parametrize("column", ["scale", "fx", "fy"])
def test_table__useless_numbers_are_refused_with_their_line(root, column, number):
    cells = {"fx": "5", column: number}
    table = root / "frames.csv"
    table.write_text(HEADER + "\n" + row() + row(**cells))
    with pytest.raises(DataError, match=rf"line 4: .*{column} '?{number}"):
        read_table(table, 1000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,depth\nimages/a/0.png\n", "line 2: no depth"),
        ("image,depth\n,depths/a/0.png\n", "line 2: no image"),
        ("image,depth\n\na,b\nc,\n", "line 4: no depth"),
        ("image,depth\na,b,c\n", r"line 2 has 3 cells, .* 2 columns; put cells"),
        ('image,depth\na,"b\nc,d\n', "line 2: .*quotation mark is not closed"),
        ('image,depth\na,"b"c\n', "line 2: .*quotation mark"),
        ("image;depth;fx\na;b;525,5\n", "line 2: fx '525,5' is no number; .* a point"),
        (HEADER + row(cx="3"), "line 2: a camera without fx"),
        ("image,depth,depth\na,b,c\n", "line 1 has the column 'depth' twice"),
        ("rgb;depth\na;b\n", "columns rgb, depth; its first line must be image,depth"),
        ("\n\n", "columns none"),
        ("image,depth\n", "has no frames"),
        ("sep=;\nimage;depth\nx;y\n", r"2 files that .* of 2: x \(line 3\), y"),
        (
            "image,depth\nimages/a/0.png,depths/a/0.png\nimages/no.png,depths/a/1.png",
            r"names 1 files that do not exist, of 4: images/no.png \(line 3\)",
        ),
        (b"image,depth\na,b\xff\n", "line 2 has bytes that are not utf-8; save it"),
        ("image,depth\na,b\n".encode("utf-16-le"), "zero bytes: .* save it as"),
        (b"PK\x03\x04\0\0", "zero bytes: a spreadsheet itself"),
    ],
)
def test_table__wrong_lines_are_named(root, text, message):
    table = root / "frames.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        read_table(table, 1000)


def test_table__backslashes_are_folders(root):
    table = root / "frames.csv"
    table.write_text("image,depth\nimages\\a\\0.png,depths\\a\\0.png\n")
    (pair,) = read_table(table, 1000)
    assert pair.image == root / "images/a/0.png"
    assert pair.depth == root / "depths/a/0.png"


def test_camera__principal_point_is_the_middle_of_the_picture(tmp_path):
    cv2.imwrite(str(tmp_path / "i.png"), np.zeros((40, 57, 3), np.uint8))
    np.save(tmp_path / "d.npy", np.ones((40, 57)))
    table = tmp_path / "frames.csv"
    table.write_text("image,depth,fx,cy\ni.png,d.npy,500,7\n")
    frame = PairFrames(read_table(table, 1))[0]
    expected = [[500, 0, 28], [0, 500, 7], [0, 0, 1]]
    np.testing.assert_array_equal(frame.intrinsics, expected)


def test_files__are_asked_for_a_folder_at_a_time(tmp_path, monkeypatch):
    names = [f"{i:03d}.png" for i in range(200)]
    write_files(tmp_path, names)
    table = tmp_path / "frames.csv"
    lines = [f"images/{name},depths/{name}\n" for name in names]
    table.write_text("image,depth\n" + "".join(lines))
    asked = []
    entries = listing._entries
    monkeypatch.setattr(listing, "_entries", lambda f: asked.append(f) or entries(f))
    monkeypatch.setattr(Path, "is_file", lambda path: asked.append(path))
    assert len(read_table(table, 1000)) == 200
    assert asked == [tmp_path / "images", tmp_path / "depths"]


def test_pairs__many_take_little_memory_and_parts_share_it():
    import pickle
    import tracemalloc

    from datamodules.files.pairs import Pairs

    names = [f"images/frame_{i:06d}.png" for i in range(20_000)]
    tracemalloc.start()
    pairs = Pairs(Path("root"), names, names, 1000)
    part = pairs.chosen(np.arange(0, 20_000, 2))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Two names of 23 bytes, two ends and one place of 8.
    assert kept < 20_000 * (2 * 23 + 2 * 8 + 8 + 8) * 1.5
    assert part[-1].image == Path("root/images/frame_019998.png")
    assert len(part[10:20]) == 10
    assert pickle.loads(pickle.dumps(part))[1].depth == part[1].depth
