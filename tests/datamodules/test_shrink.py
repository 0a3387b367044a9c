"""How pictures become much smaller, in data modules, records and predictions."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from app.prediction.command import main as predict
from app.training.command import main as train
from datamodules import FolderDataModule
from datamodules.errors import DataError
from datamodules.files.depths.reading import read_image
from datamodules.inputs import normalise, resize_image
from models.artefacts.checkpoint import load_checkpoint
from tests.app.training.test_train import folder_data, write_config
from tests.conftest import write_rgbd

RNG = np.random.default_rng(0)
SIZE = (28, 42)


@pytest.mark.parametrize("size", [(112, 168), (30, 45), (20, 30)])
def test_cubic__is_the_official_rule_at_every_size(size):
    image = RNG.integers(0, 255, (*size, 3), dtype=np.uint8)
    official = cv2.resize(image, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(resize_image(image, SIZE, "cubic"), official)


def test_area__is_the_mean_of_what_is_left_out():
    image = RNG.integers(0, 255, (112, 168, 3), dtype=np.uint8)
    means = image.reshape(28, 4, 42, 4, 3).mean((1, 3))
    np.testing.assert_allclose(resize_image(image, SIZE), means, atol=0.5)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_rgbd(tmp_path / "rgbd", 6, size=(112, 168))


@pytest.mark.parametrize("shrink", ["area", "cubic"])
def test_data_module__shows_pictures_by_the_rule(root, shrink):
    data = FolderDataModule(
        str(root), 1000, 10, image_size=SIZE, num_workers=0, image_shrink=shrink
    )
    data.setup("fit")
    item = data.val_dataloader().dataset[0]
    expected = normalise(resize_image(read_image(Path(item["path"])), SIZE, shrink))
    assert torch.equal(item["image"], expected)
    with pytest.raises(DataError, match="image_shrink 'lanczos' is not known; use ar"):
        FolderDataModule(str(root), 1000, 10, image_shrink="lanczos")


def test_record__predictions_follow_the_rule_of_training(root, tmp_path, tiny_weights):
    data = folder_data(root, image_shrink="cubic")
    config = str(write_config(tmp_path, tiny_weights, data))
    train(["fit", "--config", config, "--trainer.max_epochs", "1"])
    ckpt = tmp_path / "runs/small/version_0/checkpoints/last.ckpt"
    assert torch.load(ckpt, weights_only=True)["lava_depth"]["image_shrink"] == "cubic"

    picture = root / "images/a/0.jpg"
    network, _ = load_checkpoint(ckpt)
    for name, options in (("cubic", []), ("area", ["--shrink", "area"])):
        out = tmp_path / name
        given = [str(picture), "--model", str(ckpt), "--output", str(out)]
        predict([*given, "--formats", "npy", *options])
        about = json.loads((out / "predictions.json").read_text())
        assert about["header"]["image_shrink"] == name
        image = normalise(resize_image(read_image(picture), SIZE, name))
        with torch.no_grad():
            depth = network.eval()(image[None])
        expected = torch.nn.functional.interpolate(
            depth, (112, 168), mode="bilinear", align_corners=True
        )[0, 0]
        found = np.load(out / "0.jpg.depth.npy")
        np.testing.assert_allclose(found, expected, rtol=1e-4)

    data["init_args"]["image_shrink"] = "area"
    config = str(write_config(tmp_path, tiny_weights, data))
    with pytest.warns(UserWarning, match="with image_shrink cubic; the data have area"):
        train(["test", "--config", config, "--ckpt_path", str(ckpt)])
