"""What is noted stays, whoever noted it and whenever it was killed."""

import json
import os
from pathlib import Path

import pytest

from app.prediction.ledger import LEDGER, Ledger, stamp
from datamodules.errors import DataError
from datamodules.files.pictures import Picture

HEADER = {"model": "m", "png_units_per_metre": None}
OTHER = {"model": "n", "png_units_per_metre": None}


def entry(folder: Path, name: str, *formats: str, error: str = "") -> dict[str, object]:
    """An entry whose outputs are there."""
    outputs = [f"{name}.{kind}" for kind in formats]
    for output in outputs:
        (folder / output).write_text("depth")
    return {"error": error, "outputs": outputs, "formats": list(formats)}


def run(folder: Path, names: str, *formats: str, header=HEADER, error="", **place):
    """A run that is killed before it ends."""
    ledger = Ledger(folder, header, **place)
    for name in names:
        ledger.note(name, entry(folder, name, *formats, error=error))
    ledger._file.close()
    return ledger


def files(folder: Path) -> dict[str, dict]:
    return json.loads((folder / LEDGER).read_text())["files"]


def test_killed__at_any_byte_loses_the_last_picture_at_most(tmp_path):
    run(tmp_path, "abc", "npy")
    (journal,) = tmp_path.glob(".predictions.*")
    content = journal.read_bytes()
    ends = [i for i, byte in enumerate(content) if byte == ord("\n")]
    for length in range(len(content) + 1):
        journal.write_bytes(content[:length])
        # A line is whole without the end of its line, too.
        whole = sum(length >= end for end in ends[1:])
        assert Ledger(tmp_path, HEADER).done(("npy",)) == set("abc"[:whole])


def test_killed__the_next_run_folds_and_goes_on(tmp_path):
    run(tmp_path, "ab", "npy")
    (journal,) = tmp_path.glob(".predictions.*")
    journal.write_bytes(journal.read_bytes()[:-5])
    ledger = Ledger(tmp_path, HEADER)
    assert ledger.done(("npy",)) == {"a"}
    ledger.note("b", entry(tmp_path, "b", "npy"))
    assert list(files(tmp_path)) == ["a"]
    ledger.close()
    assert ledger.fold() == {"a": "", "b": ""}
    assert list(files(tmp_path)) == ["a", "b"]
    assert not list(tmp_path.glob(".predictions.*"))


def test_killed__while_folding_nothing_is_lost_or_doubled(tmp_path):
    journals = {}
    for number, (names, error) in enumerate((("ab", ""), ("bc", "old"), ("c", ""))):
        other = tmp_path / f"other{number}"
        other.mkdir()
        run(other, names, "npy", error=error)
        journal = tmp_path / f".predictions.{number + 1}.0.jsonl"
        journals[journal] = (other / ".predictions.1.0.jsonl").read_bytes()
    for path in journals:
        path.write_bytes(journals[path])
    for name in "abc":
        entry(tmp_path, name, "npy")
    errors = {"a": "", "b": "old", "c": ""}
    assert Ledger(tmp_path, HEADER).fold() == errors
    # They go one by one, the oldest first.
    for left in range(1, 4):
        for path in list(journals)[-left:]:
            path.write_bytes(journals[path])
        assert Ledger(tmp_path, HEADER).fold() == errors
        assert not list(tmp_path.glob(".predictions.*"))


def test_processes__a_stale_entry_of_a_rank_does_not_beat_a_newer_one(tmp_path):
    run(tmp_path, "a", "npy", error="cut off", rank=1, world_size=2)
    first = [Ledger(tmp_path, HEADER, rank, 2) for rank in (0, 1)]
    for ledger in first:
        assert ledger.done(("npy",)) == set()
    first[0].note("a", entry(tmp_path, "a", "npy"))
    first[1].note("b", entry(tmp_path, "b", "npy"))
    for ledger in first:
        ledger.close()
    assert first[0].fold() == {"a": "", "b": ""}
    assert {path.name for path in tmp_path.iterdir()} == {LEDGER, "a.npy", "b.npy"}


def test_formats__another_one_keeps_what_is_done(tmp_path):
    run(tmp_path, "ab", "npy").close()
    # That a run without PNGs has no unit for them is no difference.
    header = HEADER | {"png_units_per_metre": 256}
    ledger = Ledger(tmp_path, header)
    assert ledger.done(("npy",)) == {"a", "b"}
    assert ledger.done(("npy", "png")) == set()
    ledger.note("a", entry(tmp_path, "a", "png"))
    ledger.close()
    assert files(tmp_path)["a"]["outputs"] == ["a.npy", "a.png"]
    assert Ledger(tmp_path, HEADER).done(("npy",)) == {"a", "b"}
    assert Ledger(tmp_path, HEADER).done(("npy", "png")) == {"a"}
    with pytest.raises(DataError, match="png_units_per_metre 256, now 1000"):
        Ledger(tmp_path, HEADER | {"png_units_per_metre": 1000}).done(("npy",))


def test_overwrite__of_a_part_keeps_the_rest(tmp_path):
    run(tmp_path, "abc", "npy", "png").close()
    # --overwrite does not ask what is done.
    run(tmp_path, "b", "npy").close()
    assert list(files(tmp_path)) == ["a", "b", "c"]
    assert Ledger(tmp_path, HEADER).done(("npy", "png")) == {"a", "c"}


def test_header__another_one_is_refused_and_overwriting_makes_the_rest_stale(tmp_path):
    run(tmp_path, "abc", "npy").close()
    with pytest.raises(DataError, match="model m, now n"):
        Ledger(tmp_path, OTHER).done(("npy",))
    run(tmp_path, "b", "npy", header=OTHER)  # killed
    assert Ledger(tmp_path, OTHER).done(("npy",)) == {"b"}
    with pytest.raises(DataError, match="model n, now m"):
        Ledger(tmp_path, HEADER).done(("npy",))
    Ledger(tmp_path, OTHER).fold()
    assert list(files(tmp_path)) == ["b"]


def test_header__from_before_an_option_says_its_default(tmp_path):
    run(tmp_path, "a", "npy").close()
    assert Ledger(tmp_path, {**HEADER, "tta": False}).done(("npy",)) == {"a"}
    with pytest.raises(DataError, match="tta False, now True"):
        Ledger(tmp_path, {**HEADER, "tta": True}).done(("npy",))


def test_outputs__that_are_gone_are_not_claimed(tmp_path):
    run(tmp_path, "ab", "npy", "png").close()
    for gone in ("a.npy", "a.png", "b.png"):
        (tmp_path / gone).unlink()
    assert Ledger(tmp_path, HEADER).done(("npy",)) == {"b"}
    Ledger(tmp_path, HEADER).fold()
    assert {name: e["formats"] for name, e in files(tmp_path).items()} == {"b": ["npy"]}


def test_disk_full__is_said_and_the_cut_line_is_no_picture(tmp_path):
    ledger = Ledger(tmp_path, HEADER)
    ledger.note("a", entry(tmp_path, "a", "npy"))

    class Full:
        name = "journal"

        def write(self, line):
            return real.write(line[: len(line) // 2])

    real, ledger._file = ledger._file, Full()
    with pytest.raises(DataError, match="No space left on device"):
        ledger.note("b", entry(tmp_path, "b", "npy"))
    real.close()
    assert Ledger(tmp_path, HEADER).done(("npy",)) == {"a"}


def test_other_file__in_its_place_is_named(tmp_path):
    (tmp_path / LEDGER).write_text('{"header": {}, "files": {"a": {"error": ""}}}')
    with pytest.raises(DataError, match="is not a list of predictions"):
        Ledger(tmp_path, HEADER).done(("npy",))


def pictured(folder: Path, source: Path, name="a.png") -> dict[str, object]:
    """An entry of a picture as it is now."""
    return {
        **entry(folder, name, "npy"),
        "source": str(source),
        "stamp": stamp(source),
    }


def noted(tmp_path, content="picture"):
    """A folder with the prediction of `A/a.png`, and that picture."""
    source, out = tmp_path / "A/a.png", tmp_path / "out"
    for folder in (source.parent, out):
        folder.mkdir()
    source.write_text(content)
    ledger = Ledger(out, HEADER)
    ledger.note("a.png", pictured(out, source))
    ledger.close()
    return source, out


def asked(out: Path, path: Path, formats=("npy",)) -> set[str]:
    return Ledger(out, HEADER).done(formats, [Picture(path, "a.png")])


def test_done__is_the_same_picture_also_from_elsewhere(tmp_path, monkeypatch):
    source, out = noted(tmp_path)
    assert asked(out, source) == {"a.png"}
    monkeypatch.chdir(source.parent)
    assert asked(out, Path("a.png")) == {"a.png"}
    moved = source.parent.rename(tmp_path / "B") / "a.png"
    assert asked(out, moved) == {"a.png"}


def test_done__a_picture_that_was_changed_is_not(tmp_path):
    source, out = noted(tmp_path)
    source.write_text("another picture")
    ledger = Ledger(out, HEADER)
    assert ledger.done(("png",), [Picture(source, "a.png")]) == set()
    ledger.note("a.png", {**pictured(out, source), "formats": [], "outputs": []})
    ledger.close()
    # What is left of the former one is none of it.
    assert files(out) == {}


@pytest.mark.parametrize("content", ["another picture", "pictur2"])
def test_done__another_picture_of_the_name_is_refused(tmp_path, content):
    """Also one of the same size and time, where the first one is still there."""
    source, out = noted(tmp_path)
    other = tmp_path / "B/a.png"
    other.parent.mkdir()
    other.write_text(content)
    times = source.stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(DataError, match="other pictures that have the same names, 1 "):
        asked(out, other)
    assert asked(out, source) == {"a.png"}


def test_done__entries_of_older_programs_go_by_their_place(tmp_path):
    source, out = noted(tmp_path)
    content = json.loads((out / LEDGER).read_text())
    del content["files"]["a.png"]["stamp"]
    (out / LEDGER).write_text(json.dumps(content))
    assert asked(out, source) == {"a.png"}
    with pytest.raises(DataError, match="other pictures"):
        asked(out, tmp_path / "B/a.png")
