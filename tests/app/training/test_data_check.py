"""train.py check, and the glance before fit."""

import shutil
import time

import cv2
import numpy as np
import pytest

from app.training.command import main
from tests.app.training.test_train import folder_data, write_config

pytestmark = pytest.mark.usefixtures("_here")


@pytest.fixture
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def slopes(tmp_path):
    """Twelve frames of 56x40 px whose depth goes from 1 to 6 m."""
    root = tmp_path / "slopes"
    for part in ("rgb", "depth"):
        (root / part).mkdir(parents=True)
    depth = np.linspace(1000, 6000, 40 * 56).reshape(40, 56).astype(np.uint16)
    for i in range(12):
        cv2.imwrite(str(root / f"rgb/{i}.png"), np.zeros((40, 56, 3), np.uint8))
        cv2.imwrite(str(root / f"depth/{i}.png"), depth)
    return root


def check(tmp_path, root, *more, **options) -> None:
    # Weights that are not there: the check does not need them.
    config = write_config(tmp_path, tmp_path / "no", folder_data(root, **options))
    main(["check", "--config", str(config), *more])


def test_check__validation_on_what_is_trained_on_is_suspicious(
    tmp_path, slopes, capsys
):
    check(tmp_path, slopes, val_root=f"{slopes}/../slopes")
    out = capsys.readouterr().out
    assert "suspicious: 12 pictures are trained on and held out as well" in out


def test_check__says_what_the_data_are(tmp_path, slopes, capsys):
    check(tmp_path, slopes, "--frames", "5", val_fraction=0.25)
    out = capsys.readouterr().out
    assert "train        9 frames, 5 looked at: 56x40 px, no intrinsics" in out
    assert "val          3 frames, 3 looked at" in out
    assert "1 to 6 m, median 3.5" in out
    assert "1 to 2 m        20.0%  ########\n" in out
    assert "good to train on" in out
    assert not (tmp_path / "runs").exists()


def test_check__suspicious_is_no_failure(tmp_path, slopes, capsys):
    check(tmp_path, slopes, max_depth=30.0, depth_scale=50)
    out = capsys.readouterr().out
    assert "suspicious: " in out
    assert "may be millimetres: 3.5 m (depth_scale 1000)" in out
    assert "look at what is suspicious" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depth_scale": 1}, "millimetres: 3.5 m (depth_scale 1000)"),
        ({"max_depth": 0.9}, "every depth is beyond max_depth, the nearest at 1 m"),
        ({"image_folder": "left"}, "has depth/, rgb/; a data root has a folder"),
    ],
)
def test_check__useless_data_end_with_one_line(
    tmp_path, slopes, capsys, options, words
):
    with pytest.raises(SystemExit) as stopped:
        check(tmp_path, slopes, **options)
    assert stopped.value.code == 1
    err = capsys.readouterr().err.splitlines()
    assert words in err[-1]
    assert err[-1].startswith("error: ")


def test_check__a_broken_frame_fails_unless_it_may_be_skipped(tmp_path, slopes, capsys):
    (slopes / "depth/7.png").write_bytes(b"")
    check(tmp_path, slopes, on_error="skip")
    assert "suspicious: 1 of " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        check(tmp_path, slopes)
    assert "it would stop a run" in capsys.readouterr().err


def test_fit__glance_warns_and_goes_on(tmp_path, slopes, tiny_weights, capsys):
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)
    data = folder_data(slopes, max_depth=80.0, depth_scale=5000)
    config = str(write_config(tmp_path, tiny_weights, data))
    quick = ("--trainer.fast_dev_run", "true")
    began = time.monotonic()
    main(["fit", "--config", config, *quick])
    assert time.monotonic() - began < 60
    err = capsys.readouterr().err
    assert "warning: the median depth is 0.7 m of max_depth 80 m" in err
    main(["fit", "--config", config, *quick, "--data_check.frames", "0"])
    assert "warning: the median" not in capsys.readouterr().err
