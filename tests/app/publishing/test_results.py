"""Which recorded results a model card shows."""

import json

from app.publishing.hub import recorded_results


def test_results__are_of_this_checkpoint_alone(tmp_path):
    for name in ("best", "last"):
        (tmp_path / f"{name}.ckpt").write_bytes(b"")
        content = {"checkpoint": f"{name}.ckpt", "protocol": "full", "metrics": {}}
        (tmp_path / f"test_{name}.json").write_text(json.dumps(content))
    (found,) = recorded_results(str(tmp_path / "best.ckpt"))
    assert found["checkpoint"] == "best.ckpt"
    assert len(recorded_results(str(tmp_path))) == 2
    assert recorded_results("owner/name") == []


def test_results__of_a_folder_below_home_and_beside_files_of_others(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "model"
    folder.mkdir()
    ours = {"protocol": "full", "metrics": {"delta1": 0.5}, "align": "none"}
    (folder / "test_full.json").write_text(json.dumps(ours))
    (folder / "test_results.json").write_text('{"test_loss": 1.0}')
    (folder / "test_cut.json").write_text("{")
    (folder / "test_list.json").write_text("[]")
    assert recorded_results("~/model") == [ours]
