"""A folder of everything that goes wrong: the good predicted once, the bad named."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from app.prediction.command import main
from app.prediction.ledger import Ledger
from models.artefacts.merged import save_network
from tests.conftest import random_tiny

REPO = Path(__file__).parents[3]
BAD = {"zero.png", "truncated.jpg", "truncated.png", "text.png", "loop.png"}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_network(random_tiny(), folder, {"image_size": [28, 42]})
    return folder


def torture(root: Path, plain=44) -> set[str]:
    """Writes the folder; returns the names of the good pictures."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    (root / "sub/deep er").mkdir(parents=True)
    for orientation in (3, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(root / f"exif{orientation}.jpg", exif=exif)
    Image.fromarray(pixels[:1, :1]).save(root / "one.png")
    Image.new("RGB", (8000, 6000), (90, 120, 30)).save(root / "large.jpg", quality=30)
    cv2.imwrite(str(root / "sixteen.png"), pixels.astype(np.uint16) * 257)
    image.convert("P").save(root / "palette.png")
    image.convert("CMYK").save(root / "cmyk.jpg")
    image.convert("RGBA").save(root / "alpha.png")
    image.convert("L").save(root / "grey.png")
    more = {"save_all": True, "append_images": [image.rotate(90)]}
    image.save(root / "animated.png", **more)
    image.save(root / "sub/übung ß 深度.png")
    image.save(root / "sub/deep er/two  spaces.jpg")
    for i in range(plain):
        image.rotate(i).save(root / f"sub/{i:02d}.png")
    good = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
    for name in ("jpg", "png"):
        image.save(root / f"truncated.{name}")
        content = (root / f"truncated.{name}").read_bytes()
        (root / f"truncated.{name}").write_bytes(content[: len(content) // 2])
    (root / "zero.png").write_bytes(b"")
    (root / "text.png").write_text("no picture")
    (root / "loop.png").symlink_to("loop.png")
    (root / "sub/up").symlink_to(root, target_is_directory=True)
    return good


def arguments(root, model, out, *more) -> list[str]:
    fixed = ["--accelerator", "cpu", "--devices", "1", "--formats", "npy"]
    return [str(root), "--model", str(model), "--output", str(out), *fixed, *more]


def entries(out) -> dict[str, dict]:
    return json.loads((out / "predictions.json").read_text())["files"]


def test_folder__good_ones_are_done_and_bad_ones_named(model, tmp_path, capsys):
    good = torture(tmp_path / "in")
    assert len(good) + len(BAD) >= 60
    with pytest.raises(SystemExit) as stopped:
        main(arguments(tmp_path / "in", model, tmp_path / "out"))
    assert stopped.value.code == 1
    found = entries(tmp_path / "out")
    assert {name for name, entry in found.items() if not entry["error"]} == good
    assert {name for name, entry in found.items() if entry["error"]} == BAD
    for name in BAD:
        assert name in found[name]["error"]
    outputs = set((tmp_path / "out").rglob("*.npy"))
    assert len(outputs) == len(good)
    for name in good:
        depth = np.load(tmp_path / f"out/{name}.depth.npy")
        assert depth.shape == tuple(found[name]["size"][::-1])
        assert np.isfinite(depth).all()
    assert found["exif6.jpg"]["size"] == [30, 40]
    assert found["large.jpg"]["size"] == [8000, 6000]
    assert (
        f"{len(BAD)} of {len(good) + len(BAD)} pictures failed"
        in capsys.readouterr().err
    )


@pytest.mark.slow  # disk_full and `again` are its short form
def test_sigterm__the_same_command_again_finishes(model, tmp_path):
    good = torture(tmp_path / "in", plain=80)
    out = tmp_path / "out"
    command = [sys.executable, str(REPO / "predict.py")]
    command += arguments(tmp_path / "in", model, out, "--batch-size", "1")
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path
    )
    deadline = time.monotonic() + 120
    while len(list(out.rglob("*.npy"))) < 20:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) != 0
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.npy")}
    assert len(before) < len(good)
    noted = {name for name, entry in entries(out).items() if not entry["error"]}
    assert noted == {
        p.relative_to(out).as_posix()[: -len(".depth.npy")] for p in before
    }
    with pytest.raises(SystemExit):
        main(arguments(tmp_path / "in", model, out))
    assert {name for name, e in entries(out).items() if not e["error"]} == good
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())
    assert not list(out.rglob("*.part"))


def test_ledger__knows_every_picture_as_soon_as_its_files_are_there(
    model, tmp_path, monkeypatch
):
    """A kill after any entry would leave that one and all before it."""
    torture(tmp_path / "in", plain=5)
    out = tmp_path / "out"
    real, found = Ledger.note, []

    def spy(self, name, entry):
        real(self, name, entry)
        done = Ledger(out, self.header).done(("npy",))
        assert all((out / f"{picture}.depth.npy").is_file() for picture in done)
        assert entry["error"] or name in done
        found.append(len(done))

    monkeypatch.setattr(Ledger, "note", spy)
    with pytest.raises(SystemExit):
        main(arguments(tmp_path / "in", model, out, "--workers", "0"))
    assert found[-1] > 10


def test_disk_full__is_named_and_leaves_no_half_file(
    model, tmp_path, monkeypatch, capsys
):
    good = torture(tmp_path / "in", plain=5)
    real, written = np.save, []

    def full(file, depth, **options):
        written.append(file.name)
        if len(written) > 3:
            file.write(b"begun")
            raise OSError(28, "No space left on device", file.name)
        return real(file, depth, **options)

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(SystemExit) as stopped:
        main(arguments(tmp_path / "in", model, tmp_path / "out", "--workers", "0"))
    assert stopped.value.code == 1
    assert "No space left on device" in json.dumps(entries(tmp_path / "out"))
    assert len(list((tmp_path / "out").rglob("*.npy"))) == 3
    assert not list((tmp_path / "out").rglob("*.part"))
    monkeypatch.undo()
    with pytest.raises(SystemExit):
        main(arguments(tmp_path / "in", model, tmp_path / "out", "--workers", "0"))
    done = {n for n, e in entries(tmp_path / "out").items() if not e["error"]}
    assert done == good


def test_two_processes__share_the_folder_and_one_ledger(model, tmp_path):
    good = torture(tmp_path / "in", plain=5)
    command = [sys.executable, str(REPO / "predict.py"), str(tmp_path / "in")]
    command += ["--model", str(model), "--output", str(tmp_path / "out")]
    command += ["--accelerator", "cpu", "--devices", "2", "--formats", "npy"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=240,
    )
    assert done.returncode == 1, done.stderr
    found = entries(tmp_path / "out")
    assert {name for name, entry in found.items() if not entry["error"]} == good
    assert not list((tmp_path / "out").glob(".predictions.*"))
