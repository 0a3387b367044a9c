"""The comparison on photographs: which frames are trained on, which runs there are."""

import json
from dataclasses import replace
from itertools import count

import cv2
import numpy as np
import pytest

from benchmarks.comparison.cell import Settings
from benchmarks.comparison.photographs import store_photographs
from benchmarks.comparison.plan import GRID, PHOTOS, QUICK, Contest
from benchmarks.comparison.reporting.scale import scale, scale_figure
from benchmarks.comparison.runs import Runs
from benchmarks.comparison.tasks import StoredFrames, TaskData, task_named
from benchmarks.mixed_photographs import WAYS, Given, report, scored

FRAMES = [
    *(("outdoors", "drive", "train") for _ in range(10)),
    *(("outdoors", "other_drive", "test") for _ in range(2)),
    *(("indoors", "desk", "train") for _ in range(3)),
    *(("indoors", "piv_office", "train") for _ in range(2)),
    *(("indoors", "kitchen", "test") for _ in range(1)),
]


@pytest.fixture
def photos(tmp_path):
    """Frame i is i + 1 metres away; the size of one place is not the other's."""
    index = []
    for i, (place, scene, split) in enumerate(FRAMES):
        size = (30, 90) if place == "outdoors" else (60, 80)
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((*size, 3), i, np.uint8))
        depth = np.full(size, 256 * (i + 1), np.uint16)
        cv2.imwrite(str(tmp_path / f"{i}d.png"), depth)
        about = {"id": str(i), "rgb": f"{i}.png", "depth": f"{i}d.png"}
        about |= {"depth_scale": 256, "place": place, "scene": scene, "split": split}
        index.append(about)
    (tmp_path / "index.json").write_text(json.dumps(index))
    return tmp_path


def test_photographs__rates_are_chosen_by_scenes_of_training(photos, tmp_path):
    stored = tmp_path / "stored"
    lengths = store_photographs(stored, photos, (42, 56))
    assert lengths == {"photos_outdoors": 8, "photos_indoors": 3}

    def metres(task, split):
        frames = StoredFrames(stored, f"{task}_{split}")
        return [round(float(frames[i].depth.mean()), 3) for i in range(len(frames))]

    assert metres("photos_outdoors", "train") == list(range(1, 9))
    assert metres("photos_outdoors", "val") == [9, 10]
    assert metres("photos_outdoors", "test") == [11, 12]
    assert metres("photos_indoors", "train") == [13, 14, 15]
    assert metres("photos_indoors", "val") == [16, 17]
    assert metres("photos_indoors", "test") == [18]
    task = task_named("photos_outdoors")
    data = TaskData(stored, task, (42, 56), 2, 4, seed=0)
    data.setup("fit")
    assert next(iter(data.train_dataloader()))["image"].shape == (2, 3, 98, 322)
    assert task_named(task.source).name == "photos_indoors"


def rates(plan, parts):
    return dict.fromkeys(plan.contests(parts), GRID[3])


def test_plan__every_run_has_a_file_of_its_own():
    parts = ("methods", "scale")
    cells = PHOTOS.scored(rates(PHOTOS, parts), parts)
    names = [cell.file_name for cell in cells]
    assert len(names) == len({*names})
    long = [cell for cell in cells if cell.steps == 400]
    # Three with two ranks and the head, three seeds.
    assert len(long) == (3 * 2 + 1) * 3
    assert {cell.n_train for cell in long} == {104}
    assert {cell.rank for cell in long} == {None, 8, 16}


def test_plan__every_larger_rank_has_a_rate_of_its_own():
    parts = ("methods", "scale")
    chosen = dict(zip(PHOTOS.contests(parts), count(1), strict=False))
    for cell in PHOTOS.scored(chosen, parts):
        if cell.rank is not None:
            assert cell.lr == chosen[Contest(cell.task, cell.method, cell.rank)]


def test_plan__a_larger_ranks_rate_is_sought_from_the_methods():
    """A made-up landscape: the larger the rank, the smaller the best rate."""
    parts = ("methods", "scale")
    best = {None: 1e-2, 8: 1e-2, 16: 1e-3}
    results, order = {}, []
    while cells := PHOTOS.tuning(results, parts):
        for cell in cells:
            off = abs(GRID.index(cell.lr) - GRID.index(best[cell.rank]))
            results[cell] = {"validation": [{"delta1": 1 - off / 10}]}
            order.append((cell.task, cell.method, cell.rank, cell.lr))
    rates = PHOTOS.rates(results, parts)
    assert rates[Contest("photos_outdoors", "lora", 8)] == 1e-2
    assert rates[Contest("photos_outdoors", "lora", 16)] == 1e-3
    tried = [r for *key, r in order if key == ["photos_outdoors", "lora", 16]]
    assert [*dict.fromkeys(tried)] == [1e-2, 3e-3, 1e-3, 3e-4]


def test_scale__table_and_figure_of_its_runs():
    plan = replace(QUICK, scaled_task="photos_outdoors", frames=(4, 8), scaled_steps=16)
    cells = plan.scored(rates(plan, ("scale",)), ("scale",))
    results = {
        cell: {
            "test": {"delta1": (cell.steps or cell.n_train) / 100 + cell.seed / 1000}
        }
        for cell in cells
    }
    text = scale(plan, Runs(results))
    assert "on photos_outdoors" in text
    assert "| 8 frames | 8 frames, 16 steps | 4 frames |" in text
    row = next(line for line in text.splitlines() if line.startswith("| Lava"))
    assert "rank 2 | 0.081 ± 0.006 | 0.161 ± 0.006 | 0.041 ± 0.006 |" in row
    (axis,) = scale_figure(plan, Runs(results)).axes
    ticks = [label.get_text() for label in axis.get_xticklabels()]
    assert ticks == ["8 frames", "8 frames, 16 steps", "4 frames"]
    assert scale(plan, Runs({})) == ""


def test_mixed__each_way_is_scored_in_each_place(photos, tmp_path):
    stored = tmp_path / "stored"
    store_photographs(stored, photos, (42, 56))
    settings = Settings("mini", "tiny-worlds", batch_size=1, steps=1)
    given = Given(stored, 2, tmp_path)
    found = {way: [scored(way, 0, 1e-2, "test", settings, given)] * 2 for way in WAYS}
    places = {"photos_outdoors", "photos_indoors"}
    assert set(found["apart"][0]) == set(found["one"][0]) == places
    assert set(found["bank"][0]) == {*places, "routed"}
    rows = [line.split(" | ")[0] for line in report(found).splitlines()[2:]]
    assert rows == [f"| {way}" for way in WAYS]
