"""Files that a test leaves beside its checkpoint."""

import csv
import json

from app.training.results import write_result
from models.task_module import Told


def told(value: float, each=()) -> Told:
    rows = {"network": {"delta1": value}}
    return Told(
        "protocol full", rows, {"metrics": rows["network"]}, [], "full", 1, each=each
    )


def test_result__leaves_no_images_of_another_one(tmp_path):
    first, second = {"checkpoint": "a.ckpt"}, {"checkpoint": "b.ckpt"}
    each = [{"image": "x.png", "delta1": 0.5}]
    lines = write_result(tmp_path, told(0.5, each), 1, first, [])
    assert "in place of" not in "\n".join(lines)
    with (tmp_path / "test_full.csv").open() as file:
        assert [row["image"] for row in csv.DictReader(file)] == ["x.png"]
    lines = write_result(tmp_path, told(0.6), 1, second, [])
    assert "in place of the results of checkpoint a.ckpt" in lines
    assert (
        json.loads((tmp_path / "test_full.json").read_text())["checkpoint"] == "b.ckpt"
    )
    assert not (tmp_path / "test_full.csv").exists()
