"""Two runs image by image: `--per_image` and `python -m app.compare`."""

import csv
import json

import numpy as np
import pytest
from scipy import stats

from app.compare import main
from app.training.command import main as train


def write(path, scores):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "delta1", "abs_rel"])
        writer.writerows(scores)
    return str(path)


def table(out):
    rows = [line.split() for line in out.splitlines()]
    return {row[0]: row[1:] for row in rows if row and row[0] in ("delta1", "abs_rel")}


def test_compare__is_the_paired_t_interval(tmp_path, capsys):
    rng = np.random.default_rng(0)
    one = rng.uniform(0.2, 0.8, (30, 2))
    two = one + rng.normal(0.01, 0.02, (30, 2))
    names = [f"scene{i // 10}/{i}.png" for i in range(30)]
    first, second = (
        write(tmp_path / name, [[n, *row] for n, row in zip(names, rows, strict=True)])
        for name, rows in (("a.csv", one), ("b.csv", two))
    )
    main([first, second])
    out = capsys.readouterr().out
    found = table(out)["delta1"]
    low, high = stats.ttest_rel(two[:, 0], one[:, 0]).confidence_interval(0.95)
    change = (two - one)[:, 0]
    assert float(found[2]) == pytest.approx(change.mean(), abs=5e-5)
    assert float(found[3]) == pytest.approx((high - low) / 2, abs=5e-5)
    assert found[4] == f"{(change > 0).mean():.0%}"
    assert "30 images" in out
    assert "--by folder" in out
    main([first, second, "--by", "folder"])
    by_folder = table(capsys.readouterr().out)["delta1"]
    folders = change.reshape(3, 10).mean(1)
    half = stats.sem(folders) * stats.t.ppf(0.975, 2)
    assert float(by_folder[2]) == pytest.approx(folders.mean(), abs=5e-5)
    assert float(by_folder[3]) == pytest.approx(half, abs=5e-5)


def test_compare__leaves_out_what_only_one_has_and_says_so(tmp_path, capsys):
    first = write(tmp_path / "a.csv", [["x", 0.1, 1.0], ["y", 0.2, 1.0]])
    second = write(tmp_path / "b.csv", [["y", 0.3, 1.0], ["z", 0.9, 1.0]])
    main([first, second])
    out = capsys.readouterr().out
    assert float(table(out)["delta1"][2]) == pytest.approx(0.1)
    assert "1 images are in A alone" in out
    assert "1 images are in B alone" in out


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gone.csv", None, "should be one CSV"),
        ("a.csv", "", "has the columns none"),
        ("a.csv", "image\nx\n", "has no rows with scores"),
        ("a.csv", "image,delta1\nx,high\n", "a score that is no number"),
        ("a.csv", "image,delta1\nother,1\n", "no image in common"),
    ],
)
def test_compare__bad_input_is_one_line(tmp_path, capsys, name, text, message):
    good = write(tmp_path / "good.csv", [["x", 0.1, 1.0]])
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path / name), good])
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_test__writes_each_image_and_their_mean_is_the_result(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = [
        "--data",
        "datamodules.SyntheticDataModule",
        "--data.n_test",
        "5",
        "--data.image_size",
    ]
    model = ["--model", "models.DepthAnythingModule", "--model.size", "tiny"]
    model += ["--model.weights", "tiny-rooms", "--model.adapter", "null"]
    more = ["--data.batch_size", "2", "--trainer.accelerator", "cpu"]
    more += ["--per_image", "true", "--seed_everything", "0"]
    train(["test", *model, *data, "[28, 42]", *more])
    (result,) = tmp_path.glob("test_*.json")
    metrics = json.loads(result.read_text())["metrics"]
    rows = list(csv.DictReader(result.with_suffix(".csv").read_text().splitlines()))
    assert [row["image"] for row in rows] == [f"rooms/test/{i:05d}" for i in range(5)]
    for name, value in metrics.items():
        mean = np.mean([float(row[name]) for row in rows])
        # The mean is a float32; it was summed in float64.
        assert mean == pytest.approx(value, rel=1e-6)


def test_compare__one_image_in_several_rows(tmp_path, capsys):
    """Of frames that share a picture each row counts, in its order."""
    rows = [["x", 0.5, 1.0], ["x", 0.9, 1.0], ["y", 0.3, 1.0]]
    one = write(tmp_path / "one.csv", rows)
    two = write(tmp_path / "two.csv", [[n, d + 0.1, a] for n, d, a in rows])
    main([one, two])
    said = capsys.readouterr().out
    assert "3 images" in said
    row = next(line for line in said.splitlines() if line.startswith("delta1"))
    assert row.split()[1:4] == ["0.5667", "0.6667", "+0.1000"]
