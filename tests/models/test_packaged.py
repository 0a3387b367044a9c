"""The packaged networks: small files of synthetic data alone that see something."""

import numpy as np
import pytest
import torch

from benchmarks.zero_shot import predict, scored
from models.artefacts.opening import open_model
from models.artefacts.published.sources import PACKAGED, PACKAGED_NAMES

ROOMS = "22fb29057fb4e66ff9c5fdbcef663fad2d85de935c882564b5531f554e06aca5"


@pytest.mark.parametrize("name", PACKAGED_NAMES)
def test_packaged__is_small_and_says_what_it_is(name):
    folder = PACKAGED / PACKAGED_NAMES[name]
    assert (folder / "model.safetensors").stat().st_size < 10_000_000
    opened = open_model(name)
    assert next(opened.network.parameters()).dtype == torch.float32
    assert opened.network.spec.kind == "metric"
    # Its weights are those that were recorded: no file was mixed up.
    assert opened.fingerprint


def test_tiny_rooms__stays_as_it_is():
    assert open_model("tiny-rooms").fingerprint == ROOMS


def test_tiny_worlds__sees_worlds_that_it_was_not_trained_on():
    pytest.importorskip("embreex")
    from datamodules.worlds import WorldFrames

    opened = open_model("tiny-worlds").for_pictures()
    opened.merged().eval()
    assert opened.image_size is not None
    scores = {}
    for shape in ((126, 168), (98, 308)):
        frames, found = WorldFrames("test", 12, [shape], seed=11), []
        for i in range(len(frames)):
            frame = frames[i]
            depth = predict(opened, frame.image, opened.image_size, shape)
            found.append(scored(depth, frame.depth, 0.0)["median"]["delta1"])
        scores[shape] = np.mean(found)
    # One map for all pictures, the mean of the rendered ones, has 0.25 and 0.36.
    assert min(scores.values()) > 0.5, scores
