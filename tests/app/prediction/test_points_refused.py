"""predict.py --points: what is wrong with points is one line, before anything runs."""

import numpy as np
import pytest

from datamodules import extras
from tests.app.prediction.known import plain, predict, write_table

TWO = "a.png,1,1,2\nb/c.jpg,1,1,2\n"
WRONG = {
    "other columns": ("image,x,y\na.png,1,2\n", "must be image,x,y,depth (apart"),
    "unknown column": ("image,x,y,depth,colour\na.png,1,2,3,4\n", "columns colour"),
    "outside": ("image,x,y,depth\na.png,56,2,3\n", "line 2 has the point 56, 2"),
    "above": ("image,x,y,depth\na.png,5,-1,3\n", "56 pixels wide and 40 high"),
    "zero": (f"image,x,y,depth\n{TWO}a.png,5,1,0\n", "line 4 has the depth 0"),
    "negative": ("image,x,y,depth\na.png,5,1,-2\n", "line 2 has the depth -2"),
    "no number": ("image,x,y,depth\na.png,5,1,far\n", "'far' for depth"),
    "nan": ("image,x,y,depth\na.png,5,nan,2\n", "'nan' for y"),
    "no image": ("image,x,y,depth\n,5,1,2\n", "line 2 has no image"),
    "no points": ("image,x,y,depth\na.png,5,1,2\n", "1 of 2 pictures have no known"),
    "nobody's": ("image,x,y,depth\nz.png,5,1,2\n", "has no points of any of the 2"),
    "empty": ("image,x,y,depth\n", "has no points of any of the 2"),
}


@pytest.mark.parametrize(("content", "words"), WRONG.values(), ids=WRONG)
def test_wrong_table__is_one_line_before_anything_runs(
    pictures, networks, capsys, content, words
):
    table = pictures / "points.csv"
    table.write_text(content)
    with pytest.raises(SystemExit) as stopped:
        predict(pictures, networks / "metric", "--points", table)
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("error: ") == 1
    assert not (pictures.parent / "out").exists()


@pytest.mark.parametrize(
    ("more", "model", "words"),
    [
        (["--points-fit", "scale_shift"], "metric", "at least 10 known points"),
        ([], "relative", "at least 2 known points"),
        (["--points-fit", "median"], "relative", "--points-fit median is for depth"),
        (["--points-scale", "1000"], "metric", "--points-scale has no effect"),
    ],
)
def test_fit__that_cannot_be_is_refused(pictures, networks, capsys, more, model, words):
    table = pictures / "points.csv"
    table.write_text(f"image,x,y,depth\n{TWO}")
    with pytest.raises(SystemExit):
        predict(pictures, networks / model, "--points", table, *more)
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--points-per", "run"], "--points-per has no effect here"),
        (["--points-fit", "median"], "--points-fit has no effect here"),
        (["--points-scale", "1"], "--points-scale has no effect here"),
        (["--points", "nowhere.csv"], "--points nowhere.csv does not exist"),
        (["--points", ".", "--points-scale", "0"], "--points-scale 0.0 must be above"),
        (["--fx", "inf"], "--fx inf must be pixels, above 0 and finite"),
        (["--fx", "50", "--cx", "nan"], "--cx nan must be pixels, and finite"),
        (["--fx", "50", "--fov", "60"], "--fx and --fov say one thing twice"),
        (["--fov", "60", "--assume-fov", "5"], "--fov and --assume-fov say one thing"),
        (["--formats", "npy", "--depth-scale", "256"], "--depth-scale 256 has no"),
        (["--formats", "npy", "--colormap", "gray"], "--colormap gray has no effect"),
        (["--base", "tiny-rooms"], "--base tiny-rooms has no effect"),
    ],
)
def test_options__that_mean_nothing_are_refused(
    pictures, networks, capsys, more, words
):
    with pytest.raises(SystemExit):
        predict(pictures, networks / "metric", *more)
    assert words in capsys.readouterr().err


def test_points_of_other_pictures__are_warned_of(pictures, networks):
    metric = networks / "metric"
    table = write_table(pictures, plain(pictures, metric), 2)
    table.write_text(table.read_text() + "old/z.png,1,1,2\n")
    with pytest.warns(UserWarning, match=r"1 pictures that are not .* \(old/z.png\)"):
        predict(pictures, metric, "--points", table)


def test_contradicting_points__fail_their_picture_alone(pictures, networks, capsys):
    pytest.importorskip("sklearn")
    metric = networks / "metric"
    maps = plain(pictures, metric)
    truth = {"a.png": 2 * maps["a.png"], "b/c.jpg": 30 - 2 * maps["b/c.jpg"]}
    table = write_table(pictures, truth)
    with pytest.raises(SystemExit) as stopped:
        predict(pictures, metric, "--points", table, "--points-fit", "scale_shift")
    assert stopped.value.code == 1
    assert "contradict the prediction" in capsys.readouterr().err
    folder = pictures.parent / "out"
    assert (folder / "a.png.depth.npy").is_file()
    assert not (folder / "b/c.jpg.depth.npy").exists()


def test_maps__without_units_or_of_another_shape_are_refused(
    pictures, networks, capsys
):
    folder = pictures.parent / "maps"
    folder.mkdir()
    np.save(folder / "a.npy", np.ones((40, 40)))
    for more, words in (
        ([], "give --points-scale, too"),
        (["--points-scale", "1"], "another shape"),
    ):
        with pytest.raises(SystemExit):
            predict(pictures, networks / "metric", "--points", folder, *more)
        assert words in capsys.readouterr().err


def test_without_scikit_learn__one_line_says_what_to_install(
    pictures, networks, capsys, monkeypatch
):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    metric = networks / "metric"
    table = write_table(pictures, plain(pictures, metric))
    with pytest.raises(SystemExit):
        predict(pictures, metric, "--points", table)
    assert 'pip install "lava-depth[points]"' in capsys.readouterr().err
    predict(pictures, metric, "--points", table, "--points-fit", "median")
