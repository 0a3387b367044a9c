"""Several processes, one `predictions.json`."""

import json

from app.prediction.ledger import Ledger

HEADER = {"model": "m"}


def entry(error: str) -> dict[str, object]:
    return {"error": error, "outputs": [], "formats": ["npy"]}


def test_merge__what_a_process_wrote_replaces_what_was_merged_before(tmp_path):
    first = Ledger(tmp_path, HEADER)
    first.note("a.png", entry("cut off"))
    first.note("b.png", entry(""))
    first.write()

    two = [Ledger(tmp_path, HEADER, rank, 2) for rank in (0, 1)]
    for ledger in two:
        assert ledger.done(("npy",)) == {"b.png"}
    two[1].note("a.png", entry(""))
    for ledger in two:
        ledger.write()
    assert Ledger(tmp_path, HEADER).done(("npy",)) == {"a.png", "b.png"}
    two[0].merge()
    (path,) = tmp_path.iterdir()
    files = json.loads(path.read_text())["files"]
    assert {name: found["error"] for name, found in files.items()} == {
        "a.png": "",
        "b.png": "",
    }
