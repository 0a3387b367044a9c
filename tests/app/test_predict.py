"""predict.py on generated photographs with a checkpoint that training wrote."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from app.predict import main
from datamodules import SyntheticDataModule
from datamodules.depth_files import read_image
from datamodules.transforms import normalise, resize_image
from models import DepthAnythingModule
from models.adapters import Lava
from models.networks import load_depth_anything
from models.record import load_checkpoint

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
    assert names == {f"{s}.{k}.png" for s in stems for k in ("depth", "colour")}
    for stem in stems:
        size = read_image(photographs / stem).shape[:2]
        depth = cv2.imread(str(out / f"{stem}.depth.png"), cv2.IMREAD_UNCHANGED)
        assert depth.dtype == np.uint16
        assert depth.shape == size
        assert cv2.imread(str(out / f"{stem}.colour.png")).shape[:2] == size


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
        "a.png.colour.png",
        "a.png.depth.png",
    ]


def test_unreadable_photograph__is_named_after_the_others_are_done(
    photographs, ckpt, tmp_path, capsys
):
    (photographs / "bad.jpg").write_bytes(b"cut")
    with pytest.raises(SystemExit) as stopped:
        predict(photographs, ckpt, tmp_path / "out")
    assert stopped.value.code == 1
    assert "1 of 4 photographs could not be read" in capsys.readouterr().err
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
        (["{tmp}", "--model", "{tmp}/no.ckpt"], "there is no such checkpoint"),
        (["--model", "{ckpt}"], "no photographs given"),
        (["{tmp}"], "required: model"),
        (["{tmp}", "--model", "{ckpt}", "--batch_size", "x"], "batch_size"),
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
