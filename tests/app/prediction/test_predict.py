"""predict.py on generated photographs with a checkpoint that training wrote."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image

from app.prediction.command import main
from datamodules import SyntheticDataModule
from datamodules.files.depths.reading import read_depth
from datamodules.files.images.decoding import read_image
from datamodules.inputs import normalise, resize_image
from models import DepthAnythingModule
from models.adapters import Lava
from models.artefacts.adapter_folder import save_adapter
from models.artefacts.checkpoint import load_checkpoint
from models.artefacts.merged import save_network
from models.networks import load_depth_anything
from tests.conftest import random_tiny

SIZE = (28, 42)


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory, tiny_weights) -> Path:
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    learner = DepthAnythingModule(
        80.0, SIZE, size="tiny", weights=str(tiny_weights), adapter=Lava(rank=2)
    )
    Trainer(
        max_steps=2,
        accelerator="cpu",
        logger=False,
        callbacks=[ModelCheckpoint(folder, save_last=True, every_n_train_steps=1)],
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(learner, SyntheticDataModule("streets", 4, 2, image_size=SIZE, batch_size=2))
    return folder / "last.ckpt"


@pytest.fixture
def photographs(tmp_path) -> Path:
    """Several sizes, a sub-folder with a space, twins in name, no picture."""
    root = tmp_path / "photographs"
    (root / "sub dir").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (
        ("a.jpg", (40, 56)),
        ("a.png", (33, 47)),
        ("sub dir/b.png", (60, 30)),
    ):
        cv2.imwrite(str(root / name), rng.integers(0, 255, (*size, 3), dtype=np.uint8))
    (root / "notes.txt").write_text("no picture")
    return root


def predict(photographs, ckpt, out, *more):
    fixed = ["--accelerator", "cpu", "--devices", "1", "--workers", "0"]
    main([str(photographs), "--model", str(ckpt), "--output", str(out), *fixed, *more])


def test_folder__is_mirrored_at_original_resolution(photographs, ckpt, tmp_path):
    out = tmp_path / "out"
    predict(photographs, ckpt, out)
    names = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    stems = ("a.jpg", "a.png", "sub dir/b.png")
    assert names == {f"{s}.{k}.png" for s in stems for k in ("depth", "color")} | {
        "predictions.json"
    }
    for stem in stems:
        size = read_image(photographs / stem).shape[:2]
        depth = cv2.imread(str(out / f"{stem}.depth.png"), cv2.IMREAD_UNCHANGED)
        assert depth.dtype == np.uint16
        assert depth.shape == size
        assert cv2.imread(str(out / f"{stem}.color.png")).shape[:2] == size


def test_depth_png__holds_what_the_network_predicts(photographs, ckpt, tmp_path):
    predict(photographs, ckpt, tmp_path / "out")
    stored = cv2.imread(str(tmp_path / "out/a.png.depth.png"), cv2.IMREAD_UNCHANGED)
    network, _ = load_checkpoint(ckpt)
    image = normalise(resize_image(read_image(photographs / "a.png"), SIZE))
    with torch.no_grad():
        depth = network.eval()(image[None])
    expected = torch.nn.functional.interpolate(
        depth, (33, 47), mode="bilinear", align_corners=True
    )[0, 0]
    # 80 m need 256 units a metre; half a unit is lost by rounding, a little by merging.
    np.testing.assert_allclose(stored / 256, expected, atol=0.5 / 256 + 1e-4)


def test_files__may_be_named_one_by_one(photographs, ckpt, tmp_path):
    predict(photographs / "a.png", ckpt, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "a.png.color.png",
        "a.png.depth.png",
        "predictions.json",
    ]


def test_unreadable_photograph__is_named_after_the_others_are_done(
    photographs, ckpt, tmp_path, capsys
):
    (photographs / "bad.jpg").write_bytes(b"cut")
    with pytest.raises(SystemExit) as stopped:
        predict(photographs, ckpt, tmp_path / "out")
    assert stopped.value.code == 1
    assert "1 of 4 pictures failed" in capsys.readouterr().err
    assert len(list((tmp_path / "out").rglob("*.depth.png"))) == 3


def test_export__merged_folder_predicts_the_same(ckpt, tmp_path):
    main(["--model", str(ckpt), "--export", str(tmp_path / "merged")])
    network, _ = load_checkpoint(ckpt)
    merged = load_depth_anything(
        tmp_path / "merged", size="tiny", version="v2", kind="metric", max_depth=80.0
    )
    x = torch.randn(1, 3, *SIZE)
    torch.testing.assert_close(
        merged.eval()(x), network.eval()(x), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["{tmp}/nowhere", "--model", "{ckpt}"], "nowhere does not exist"),
        (["{tmp}", "--model", "{ckpt}"], "no images in"),
        (["{tmp}", "--model", "{tmp}/no.ckpt"], "there is no such file"),
        (["--model", "{ckpt}"], "no photographs given"),
        (["{tmp}"], "required: --model"),
        (
            ["{tmp}", "--model", "{ckpt}", "--batch-size", "x"],
            "--batch-size: invalid int value",
        ),
    ],
)
def test_mistake__is_one_clear_line(ckpt, tmp_path, capsys, args, message):
    with pytest.raises(SystemExit) as stopped:
        main([arg.format(tmp=tmp_path, ckpt=ckpt) for arg in args])
    assert stopped.value.code not in (0, None)
    printed = capsys.readouterr().err.strip()
    assert printed.startswith("error: ")
    assert message in printed
    assert "\n" not in printed


def test_unwritable_output__is_one_clear_line(photographs, ckpt, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SystemExit):
        predict(photographs, ckpt, tmp_path / "file" / "out")
    assert "file/out" in capsys.readouterr().err


def test_again__what_is_done_is_skipped(photographs, ckpt, tmp_path, capsys):
    out = tmp_path / "out"
    predict(photographs, ckpt, out)
    stamps = {p: p.stat().st_mtime_ns for p in out.rglob("*.png")}
    cv2.imwrite(str(photographs / "new.png"), np.zeros((20, 30, 3), np.uint8))
    (out / "a.png.depth.png").unlink()
    predict(photographs, ckpt, out)
    assert "2 of 4 are there already" in capsys.readouterr().out
    again = {p for p, stamp in stamps.items() if p.stat().st_mtime_ns != stamp}
    assert {p.name for p in again} == {"a.png.depth.png", "a.png.color.png"}
    entries = json.loads((out / "predictions.json").read_text())["files"]
    assert len(entries) == 4
    with pytest.raises(SystemExit):
        predict(photographs, ckpt, out, "--tta")
    assert "another model or with other options" in capsys.readouterr().err
    predict(photographs, ckpt, out, "--tta", "--overwrite")


def test_formats__all_say_the_same(photographs, ckpt, tmp_path):
    out = tmp_path / "out"
    forms = ["png", "npy", "pfm", "exr", "ply", "color"]
    camera = ["--fx", "50", "--fy", "51", "--cx", "20", "--cy", "10"]
    predict(photographs / "a.png", ckpt, out, "--formats", *forms, *camera)
    depth = np.load(out / "a.png.depth.npy")
    for suffix, scale in (("pfm", 1), ("exr", 1), ("png", 256)):
        found = read_depth(out / f"a.png.depth.{suffix}", scale)
        np.testing.assert_allclose(found, depth, atol=0.5 / scale if scale > 1 else 0)
    head, _, body = (out / "a.png.ply").read_bytes().partition(b"end_header\n")
    assert b"element vertex 1551" in head  # 33 x 47
    fields = [(n, "<f4") for n in "xyz"] + [(n, "u1") for n in "rgb"]
    cloud = np.frombuffer(body, fields).reshape(33, 47)
    np.testing.assert_allclose(cloud["z"], depth)
    rows, cols = np.mgrid[:33, :47]
    np.testing.assert_allclose(cloud["x"], (cols - 20) / 50 * depth, rtol=1e-6)
    np.testing.assert_allclose(cloud["y"], (rows - 10) / 51 * depth, rtol=1e-6)
    image = read_image(photographs / "a.png")
    np.testing.assert_array_equal(np.stack([cloud[n] for n in "rgb"], 2), image)
    entry = json.loads((out / "predictions.json").read_text())["files"]["a.png"]
    assert entry["intrinsics"] == [50, 51, 20, 10]
    assert entry["size"] == [47, 33]
    assert entry["depth_median"] == pytest.approx(np.median(depth))


def test_ply__without_a_focal_length_is_named(photographs, ckpt, tmp_path, capsys):
    with pytest.raises(SystemExit):
        predict(photographs / "a.png", ckpt, tmp_path / "out", "--formats", "ply")
    assert "give --fx (pixels) or --fov (degrees)" in capsys.readouterr().err
    fov = ["--fov", "90"]
    predict(photographs / "a.png", ckpt, tmp_path / "two", "--formats", "ply", *fov)
    content = json.loads((tmp_path / "two/predictions.json").read_text())["files"]
    assert content["a.png"]["intrinsics"][0] == pytest.approx(23.5)  # 47 / 2


def test_exif__focal_length_and_orientation(ckpt, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    exif.get_ifd(0x8769)[0xA405] = 28
    path = tmp_path / "turned.jpg"
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(path, exif=exif)
    predict(path, ckpt, tmp_path / "out", "--formats", "ply", "npy")
    assert np.load(tmp_path / "out/turned.jpg.depth.npy").shape == (60, 40)
    content = json.loads((tmp_path / "out/predictions.json").read_text())["files"]
    # 28 mm over the diagonal of 36x24 mm film.
    assert content["turned.jpg"]["intrinsics"][0] == pytest.approx(
        28 / 43.2666 * np.hypot(40, 60), rel=1e-5
    )


@pytest.mark.parametrize("size", ["56", "70x56", "native"])
def test_size__is_what_the_network_sees(photographs, ckpt, tmp_path, size):
    predict(photographs, ckpt, tmp_path / "out", "--formats", "npy", "--size", size)
    network, _ = load_checkpoint(ckpt)
    shape = {"56": (56, 84), "70x56": (56, 70), "native": (28, 42)}[size]
    image = normalise(resize_image(read_image(photographs / "a.png"), shape))
    with torch.no_grad():
        depth = network.eval()(image[None])
    expected = torch.nn.functional.interpolate(
        depth, (33, 47), mode="bilinear", align_corners=True
    )[0, 0]
    found = np.load(tmp_path / "out/a.png.depth.npy")
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_tta_and_tile__change_the_prediction_within_its_range(
    photographs, ckpt, tmp_path
):
    big = photographs / "big.png"
    rng = np.random.default_rng(0)
    cv2.imwrite(str(big), rng.integers(0, 255, (90, 130, 3), dtype=np.uint8))
    found = {}
    for name in ("plain", "tta", "tile"):
        more = [] if name == "plain" else [f"--{name}"]
        predict(big, ckpt, tmp_path / name, "--formats", "npy", *more)
        found[name] = np.load(tmp_path / name / "big.png.depth.npy")
        assert found[name].shape == (90, 130)
    assert not np.allclose(found["tta"], found["plain"], rtol=1e-4)
    assert not np.allclose(found["tile"], found["plain"], rtol=1e-4)
    assert found["plain"].min() * 0.99 <= found["tile"].min()
    assert found["tile"].max() <= found["plain"].max() * 1.01


def test_video__one_range_and_every_frame(ckpt, tmp_path):
    path = tmp_path / "clip.avi"
    codec = cv2.VideoWriter_fourcc(*"MJPG")
    video = cv2.VideoWriter(str(path), codec, 10, (80, 60))
    for i in range(5):
        video.write(np.full((60, 80, 3), 40 * i, np.uint8))
    video.release()
    predict(path, ckpt, tmp_path / "out", "--formats", "npy", "color")
    names = sorted(p.name for p in (tmp_path / "out/clip.avi").glob("*.npy"))
    assert names == [f"{i:06d}.depth.npy" for i in range(5)]
    maps = [np.load(tmp_path / "out/clip.avi" / name) for name in names]
    assert not np.array_equal(maps[0], maps[4])


def test_lists_and_patterns__name_the_same_pictures(photographs, ckpt, tmp_path):
    (tmp_path / "list.txt").write_text("photographs/a.jpg\n\nphotographs/a.png\n")
    for given, out in (("list.txt", "one"), ("photographs/a.*", "two")):
        predict(tmp_path / given, ckpt, tmp_path / out, "--formats", "npy")
        names = {p.name for p in (tmp_path / out).glob("*.npy")}
        assert names == {"a.jpg.depth.npy", "a.png.depth.npy"}


def test_twins__of_two_folders_are_refused(photographs, ckpt, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(
            [
                str(photographs / "a.png"),
                str(photographs),
                "--model",
                str(ckpt),
                "--output",
                str(tmp_path / "fine"),
                "--accelerator",
                "cpu",
                "--depth-scale",
                "1000",
            ]
        )
    assert "depths up to 80 m times 1000 do not fit 16 bits" in capsys.readouterr().err
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.png").write_bytes((photographs / "a.png").read_bytes())
    with pytest.raises(SystemExit):
        main([str(photographs), str(other), "--model", str(ckpt)])
    assert "would both be written as a.png" in capsys.readouterr().err


def test_model__checkpoint_adapter_and_merged_predict_the_same(
    photographs, ckpt, tmp_path
):
    network, record = load_checkpoint(ckpt)
    save_adapter(network, record, tmp_path / "adapter")
    main(["--model", str(ckpt), "--export", str(tmp_path / "merged")])
    maps = []
    for name in (ckpt, tmp_path / "adapter", tmp_path / "merged"):
        out = tmp_path / f"out {name.name}"
        predict(photographs, name, out, "--formats", "npy")
        maps.append(np.load(out / "sub dir/b.png.depth.npy"))
    assert np.array_equal(maps[0], maps[1])
    assert np.array_equal(maps[0], maps[2])


def test_prediction__that_is_not_finite_has_failed(photographs, tmp_path, capsys):
    network = random_tiny()
    with torch.no_grad():
        # Finite weights whose products are not.
        network.pretrained.patch_embed.proj.weight.mul_(1e38)
    save_network(network, tmp_path / "model")
    with pytest.raises(SystemExit) as stopped:
        predict(photographs / "a.png", tmp_path / "model", tmp_path / "out")
    assert stopped.value.code == 1
    assert "not finite in 1551 of 1551 pixels" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["predictions.json"]
