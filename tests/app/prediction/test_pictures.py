"""Pictures and videos as people have them, from the command line to the files."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from app.prediction.command import main
from datamodules.files.depths.reading import read_depth
from datamodules.files.images.decoding import read_image
from datamodules.files.whole import sole_writer
from datamodules.inputs import normalise, resize_image
from models.artefacts.merged import save_network
from tests.conftest import random_tiny

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    torch.manual_seed(0)
    save_network(random_tiny(), folder, {"image_size": 28})
    return folder


def predict(given, model, out, *more) -> None:
    fixed = ["--accelerator", "cpu", "--devices", "1", "--workers", "0"]
    fixed += ["--formats", "npy"]
    words = [str(g) for g in (given if isinstance(given, list) else [given])]
    main([*words, "--model", str(model), "--output", str(out), *fixed, *more])


def entries(out) -> dict[str, dict]:
    return json.loads((out / "predictions.json").read_text())["files"]


def write(path: Path, size=(40, 60), **more) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **more)


def expected(pixels, shape):
    """What the network of `model` says of a picture at an input shape."""
    torch.manual_seed(0)
    with torch.no_grad():
        depth = random_tiny()(normalise(resize_image(pixels, shape))[None])
    return torch.nn.functional.interpolate(
        depth, pixels.shape[:2], mode="bilinear", align_corners=True
    )[0, 0].numpy()


def clip(path: Path, size: tuple[int, int], frames=2) -> list[np.ndarray]:
    """Writes a video; its frames as OpenCV decodes them."""
    codec = cv2.VideoWriter_fourcc(*"MJPG")
    video = cv2.VideoWriter(str(path), codec, 10, size[::-1])
    for _ in range(frames):
        video.write(RNG.integers(0, 255, (*size, 3), dtype=np.uint8))
    video.release()
    reader = cv2.VideoCapture(str(path))
    return [reader.read()[1][..., ::-1] for _ in range(frames)]


@pytest.mark.parametrize(("more", "shape"), [([], (28, 70)), (["native"], (42, 112))])
def test_video__frames_keep_their_shape(model, tmp_path, more, shape):
    frames = clip(tmp_path / "clip.avi", (44, 110))
    size = ["--size", *more] if more else []
    predict(tmp_path / "clip.avi", model, tmp_path / "out", *size)
    for i, frame in enumerate(frames):
        found = np.load(tmp_path / f"out/clip.avi/{i:06d}.depth.npy")
        np.testing.assert_allclose(found, expected(frame, shape), rtol=1e-4)


def test_video__is_predicted_in_tiles_as_its_frames_are(model, tmp_path):
    frame = clip(tmp_path / "clip.avi", (60, 130), frames=1)[0]
    Image.fromarray(frame).save(tmp_path / "frame.png")
    both = [tmp_path / "clip.avi", tmp_path / "frame.png"]
    predict(both, model, tmp_path / "out", "--tile")
    predict(both[0], model, tmp_path / "plain")
    video = np.load(tmp_path / "out/clip.avi/000000.depth.npy")
    np.testing.assert_array_equal(video, np.load(tmp_path / "out/frame.png.depth.npy"))
    plain = np.load(tmp_path / "plain/clip.avi/000000.depth.npy")
    assert not np.allclose(video, plain, rtol=1e-3)


@pytest.mark.parametrize(
    ("choice", "size"), [("apply", (60, 40)), ("ignore", (40, 60))]
)
def test_exif__is_applied_or_ignored(model, tmp_path, choice, size):
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path / "turned.jpg", exif=exif)
    predict(tmp_path / "turned.jpg", model, tmp_path / "out", "--exif", choice)
    found = np.load(tmp_path / "out/turned.jpg.depth.npy")
    pixels = read_image(tmp_path / "turned.jpg", choice)
    shape = (42, 28) if choice == "apply" else (28, 42)
    assert found.shape == size
    np.testing.assert_allclose(found, expected(pixels, shape), rtol=1e-4)


def test_exif__other_choice_is_another_run(model, tmp_path, capsys):
    write(tmp_path / "a.png")
    predict(tmp_path / "a.png", model, tmp_path / "out")
    with pytest.raises(SystemExit):
        predict(tmp_path / "a.png", model, tmp_path / "out", "--exif", "ignore")
    assert "with other options" in capsys.readouterr().err


SUFFIXES = ("jpg", "png", "webp", "tif", "avif", "bmp", "gif")


def test_folder__of_every_kind_one_damaged_in_the_middle(model, tmp_path, capsys):
    """All of one size, so that they share batches."""
    for i, suffix in enumerate(SUFFIXES):
        write(tmp_path / f"in/{i}.{suffix}")
    damaged = tmp_path / "in/3.tif"
    damaged.write_bytes(damaged.read_bytes()[:-2000])
    (tmp_path / "in/._0.jpg").write_bytes(b"\0\5\x16\7")
    (tmp_path / "in/5x.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(SystemExit) as stopped:
        predict(tmp_path / "in", model, tmp_path / "out", "--batch-size", "3")
    assert stopped.value.code == 1
    assert "2 of 8 pictures failed" in capsys.readouterr().err
    errors = {n: entry["error"] for n, entry in entries(tmp_path / "out").items()}
    assert "cut off" in errors.pop("3.tif")
    assert "HEIC" in errors.pop("5x.heic")
    assert not any(errors.values())
    for name in errors:
        pixels = read_image(tmp_path / "in" / name)
        found = np.load(tmp_path / f"out/{name}.depth.npy")
        np.testing.assert_allclose(found, expected(pixels, (28, 42)), rtol=1e-4)


def test_list__of_a_data_set_is_predicted_below_its_common_folder(model, tmp_path):
    for name in ("drive_1/image/1.png", "drive_2/image/1.png"):
        write(tmp_path / "raw" / name)
    (tmp_path / "test.txt").write_text(
        "drive_1/image/1.png drive_1/depth/1.png 721.5377\n"
        "drive_2/image/1.png None 721.5377\n"
    )
    predict(tmp_path / "test.txt", model, tmp_path / "out")
    assert set(entries(tmp_path / "out")) == {
        "drive_1/image/1.png",
        "drive_2/image/1.png",
    }


@pytest.mark.parametrize("out", ["shots/predictions", "shots", "shots/../shots/p"])
@pytest.mark.parametrize("given", ["shots", "shots/**/*.png"])
def test_outputs__are_not_predicted_again(
    model, tmp_path, capsys, monkeypatch, given, out
):
    monkeypatch.chdir(tmp_path)
    write(Path("shots/a.png"))
    write(Path("shots/sub/b.png"))
    color = ["--formats", "png", "color"]
    predict(given, model, out, *color)
    for again in range(2):
        capsys.readouterr()
        write(Path(f"shots/new{again}.png"))
        predict(given, model, out, *color)
        left_out = 2 * (again + 2)
        assert f"left out: {left_out} files that predict.py" in capsys.readouterr().out
        assert len(entries(Path(out))) == again + 3


def test_outputs__of_other_runs_and_unnoted_ones_are_left_out(model, tmp_path):
    write(tmp_path / "in/a.png")
    predict(tmp_path / "in", model, tmp_path / "in/first", "--formats", "color")
    predict(tmp_path / "in", model, tmp_path / "in", "--formats", "color")
    (tmp_path / "in/predictions.json").unlink()  # killed before it was written
    predict(tmp_path / "in", model, tmp_path / "in", "--formats", "color")
    assert set(entries(tmp_path / "in")) == {"a.png"}


def test_outputs__of_a_killed_run_and_of_older_models_are_left_out(model, tmp_path):
    shots, out = tmp_path / "in", tmp_path / "in/out"
    write(shots / "a.png")
    write(shots / "b.png")
    predict(shots, model, out, "--formats", "color")
    # Stale: of other options, which `predictions.json` knows no more.
    predict(shots / "a.png", model, out, "--formats", "color", "--tta", "--overwrite")
    assert set(entries(out)) == {"a.png"}
    predict(shots, model, tmp_path / "two", "--formats", "npy")
    assert set(entries(tmp_path / "two")) == {"a.png", "b.png"}
    # Killed before its journal was folded.
    content = json.loads((out / "predictions.json").read_text())
    (out / "predictions.json").unlink()
    lines = [{"header": content["header"]}]
    lines += [{"name": n, "entry": e} for n, e in content["files"].items()]
    journal = "\n".join(map(json.dumps, lines))
    (out / ".predictions.1.0.jsonl").write_text(journal)
    predict(shots, model, tmp_path / "three", "--formats", "npy")
    assert set(entries(tmp_path / "three")) == {"a.png", "b.png"}


def test_output__that_another_run_writes_into_is_refused(model, tmp_path, capsys):
    write(tmp_path / "in/a.png")
    (tmp_path / "out").mkdir()
    with sole_writer(tmp_path / "out"), pytest.raises(SystemExit):
        predict(tmp_path / "in", model, tmp_path / "out")
    assert "another run is writing into" in capsys.readouterr().err
    assert not any((tmp_path / "out").iterdir())
    predict(tmp_path / "in", model, tmp_path / "out")


def test_output__of_a_home_is_there(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "in/a.png")
    predict(tmp_path / "in", model, "~/out")
    assert set(entries(tmp_path / "out")) == {"a.png"}


def test_exr__of_a_name_that_is_not_utf_8(model, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    write(tmp_path / "in/a.png")
    (tmp_path / "in/a.png").rename(tmp_path / "in" / name)
    predict(tmp_path / "in", model, tmp_path / "out", "--formats", "exr", "npy")
    depth = read_depth(tmp_path / "out" / f"{name}.depth.npy", 1)
    exr = tmp_path / "depth.exr"
    (tmp_path / "out" / f"{name}.depth.exr").rename(exr)
    np.testing.assert_array_equal(read_depth(exr, 1), depth)


def test_outputs__that_are_all_there_is_are_said(model, tmp_path, capsys):
    write(tmp_path / "in/a.png")
    predict(tmp_path / "in", model, tmp_path / "out", "--formats", "color")
    with pytest.raises(SystemExit):
        predict(tmp_path / "out", model, tmp_path / "two", "--formats", "color")
    assert "predictions left out: 1" in capsys.readouterr().err
