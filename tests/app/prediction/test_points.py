"""predict.py --points: metres from a few known depths."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from app.prediction.calibrator import far_m
from datamodules.files.depths.reading import read_depth
from tests.app.prediction.known import plain, predict, write_table

REPO = Path(__file__).parents[3]


@pytest.mark.parametrize("per", ["picture", "run"])
def test_few_points__give_one_factor(pictures, networks, per):
    metric = networks / "metric"
    truth = {name: 2.5 * depth for name, depth in plain(pictures, metric).items()}
    table = write_table(pictures, truth, 3)
    more = ["--points", table, "--points-per", per, "--points-fit", "median"]
    maps, entries, header = predict(pictures, metric, *more)
    for name, entry in entries.items():
        np.testing.assert_allclose(maps[name], truth[name], rtol=1e-5)
        found = entry["calibration"]
        assert (found["per"], found["fit"]) == (per, "median")
        assert found["scale"] == pytest.approx(2.5, rel=1e-5)
        assert found["shift"] == 0
        assert found["count"] == (6 if per == "run" else 3)
        assert found["residual"] < 1e-5
        assert found["outliers"] == 0
    assert header["unit"] == "metres"
    assert len(header["points_sha256"]) == 64


def test_ten_points__give_scale_and_shift(pictures, networks):
    pytest.importorskip("sklearn")
    metric = networks / "metric"
    truth = {n: 2 * depth + 3 for n, depth in plain(pictures, metric).items()}
    maps, entries, _ = predict(
        pictures, metric, "--points", write_table(pictures, truth)
    )
    for name, entry in entries.items():
        np.testing.assert_allclose(maps[name], truth[name], rtol=1e-4)
        assert entry["calibration"]["fit"] == "scale_shift"
        assert entry["calibration"]["shift"] == pytest.approx(3, rel=1e-3)


def test_relative_network__gives_metres_in_all_formats(pictures, networks):
    pytest.importorskip("sklearn")
    relative = networks / "relative"
    truth = {
        name: 1 / (0.05 * disparity + 0.1)
        for name, disparity in plain(pictures, relative).items()
    }
    formats = ("png", "npy", "ply", "color")
    given = ["--points", write_table(pictures, truth), "--fov", "60"]
    maps, entries, header = predict(pictures, relative, *given, formats=formats)
    folder = pictures.parent / "out"
    for name, entry in entries.items():
        np.testing.assert_allclose(maps[name], truth[name], rtol=1e-4)
        assert entry["calibration"]["fit"] == "disparity"
        assert set(entry["formats"]) == set(formats)
        png = read_depth(folder / f"{name}.depth.png", header["png_units_per_metre"])
        np.testing.assert_allclose(png, truth[name], rtol=1e-3, atol=1e-3)


def test_relative_network__without_points_says_how_to_get_metres(
    pictures, networks, capsys
):
    with pytest.raises(SystemExit):
        predict(pictures, networks / "relative", formats=("png",))
    assert "or give --points" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".png", ".npy"])
@pytest.mark.parametrize("zoom", [1, 2])
def test_maps__are_found_by_name_and_may_be_smaller(pictures, networks, suffix, zoom):
    """A map's pixel says the depth of the picture's pixel in its middle."""
    metric = networks / "metric"
    folder = pictures.parent / "maps"
    known = {}
    for i, (name, depth) in enumerate(plain(pictures, metric).items()):
        rows, cols = (n // zoom for n in depth.shape)
        sparse = np.zeros((rows, cols))
        for y, x in ((1, 2), (5, 7), (9, 3)):
            # Of even sizes' middles, which lie between pixels, the even neighbour.
            place = [int(np.rint((v + 0.5) * zoom - 0.5)) for v in (y, x)]
            sparse[y, x] = 3 * depth[place[0], place[1]]
        known[name] = 3 * depth
        stem = name if i else name.rpartition(".")[0]
        (folder / stem).parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".npy":
            np.save(folder / f"{stem}.npy", np.where(sparse > 0, sparse, np.nan))
        else:
            stored = np.rint(sparse * 2000).astype(np.uint16)
            cv2.imwrite(str(folder / f"{stem}.png"), stored)
    units = "1" if suffix == ".npy" else "2000"
    given = ["--points", folder, "--points-scale", units]
    maps, entries, _ = predict(pictures, metric, *given)
    for name, entry in entries.items():
        assert entry["calibration"]["count"] == 3
        np.testing.assert_allclose(maps[name], known[name], rtol=1e-3)


def test_run__gives_its_factor_to_pictures_without_points(pictures, networks):
    metric = networks / "metric"
    maps = plain(pictures, metric)
    table = write_table(pictures, {"a.png": 4 * maps["a.png"]}, 3)
    given = ["--points", table, "--points-per", "run"]
    found, _, _ = predict(pictures, metric, *given)
    for name, depth in maps.items():
        np.testing.assert_allclose(found[name], 4 * depth, rtol=1e-5)


def test_run_that_goes_on__fits_what_it_fitted_before(pictures, networks, capsys):
    """A picture that is missing gets the factor of all, not of what is left."""
    metric = networks / "metric"
    maps = plain(pictures, metric)
    factors = dict(zip(maps, (2, 3), strict=True))
    truth = {name: factors[name] * depth for name, depth in maps.items()}
    table = write_table(pictures, truth, 4)
    given = ["--points", table, "--points-per", "run"]
    first, entries, _ = predict(pictures, metric, *given)
    (pictures.parent / "out/a.png.depth.npy").unlink()
    again, others, _ = predict(pictures, metric, *given)
    assert "1 of 2 are there already" in capsys.readouterr().out
    # Batches of other pictures round otherwise.
    np.testing.assert_allclose(first["a.png"], again["a.png"], rtol=1e-6)
    assert entries["a.png"]["calibration"]["count"] == 8
    assert others["a.png"]["calibration"]["count"] == 8


def test_changed_points__make_what_is_there_stale(pictures, networks, capsys):
    metric = networks / "metric"
    truth = plain(pictures, metric)
    table = write_table(pictures, truth, 3)
    predict(pictures, metric, "--points", table)
    moved = table.rename(pictures / "moved.csv")
    predict(pictures, metric, "--points", moved)
    for changed in ("--points-per", "run"), ("--points-fit", "median"):
        with pytest.raises(SystemExit):
            predict(pictures, metric, "--points", moved, *changed)
        name = changed[0].removeprefix("--").replace("-", "_")
        assert name in capsys.readouterr().err
    table = write_table(pictures, {n: 2 * d for n, d in truth.items()}, 3)
    for more in (), ("--points", table):
        with pytest.raises(SystemExit):
            predict(pictures, metric, *more)
        assert "points_sha256" in capsys.readouterr().err


def test_exif__x_and_y_are_those_of_the_picture_as_shown(tmp_path, networks):
    from PIL import Image

    root = tmp_path / "pictures"
    root.mkdir()
    rng = np.random.default_rng(0)
    pixels = cv2.resize(rng.integers(0, 255, (4, 5, 3), dtype=np.uint8), (56, 40))
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels).save(root / "a.jpg", exif=turned)
    metric = networks / "metric"
    depth = plain(root, metric)["a.jpg"]
    assert depth.shape == (56, 40)
    table = root / "points.csv"
    table.write_text(f"image;x;y;depth\na.jpg;3;50;{5 * depth[50, 3]:.9g}\n")
    maps, _, _ = predict(root, metric, "--points", table)
    np.testing.assert_allclose(maps["a.jpg"], 5 * depth, rtol=1e-5)
    with pytest.raises(SystemExit):
        predict(root, metric, "--points", table, "--exif", "ignore", out="stored")


@pytest.mark.parametrize(
    ("farthest_m", "max_depth", "expected"),
    [(4, None, 8), (4, 10, 10), (200, 80, 65535 / 256), (300, 80, 300)],
)
def test_far_end__is_beyond_the_points_and_within_pngs(farthest_m, max_depth, expected):
    assert far_m(farthest_m, max_depth) == expected


@pytest.mark.slow
def test_two_processes__find_the_one_factor_of_the_run(pictures, networks):
    """The short form is `test_few_points__give_one_factor[run]`."""
    metric = networks / "metric"
    both = zip(plain(pictures, metric).items(), (2, 3), strict=True)
    truth = {name: factor * depth for (name, depth), factor in both}
    table = write_table(pictures, truth, 4)
    given = ["--points", str(table), "--points-per", "run"]
    expected, _, _ = predict(pictures, metric, *given)
    command = [sys.executable, str(REPO / "predict.py"), str(pictures), *given]
    command += ["--model", str(metric), "--output", str(pictures.parent / "two")]
    command += ["--accelerator", "cpu", "--devices", "2", "--formats", "npy"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, timeout=240)
    for name, depth in expected.items():
        found = np.load(pictures.parent / f"two/{name}.depth.npy")
        np.testing.assert_allclose(found, depth, rtol=1e-6)
