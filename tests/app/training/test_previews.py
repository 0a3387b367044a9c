"""Panels whose pictures have known answers."""

import numpy as np
import pytest
import torch

from app.training.previews import SIDE_PX, _stacked, panel
from datamodules.batch import ImageInput
from datamodules.files.depths.writing import colour


def batch(rows: int, cols: int, truth: torch.Tensor) -> dict:
    return {
        "image": torch.zeros(1, 3, 28, 42),
        "depth": truth[None, None],
        "valid": truth[None, None] > 0,
        "size": [(rows, cols)],
        "path": ["a"],
    }


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((3000, 4000), (360, 480)),
        ((4000, 3000), (480, 360)),
        ((40, 56), (40, 56)),
        ((2, 4000), (1, 480)),
    ],
)
def test_panel__is_at_most_480_px_a_side(size, expected):
    truth = torch.linspace(1, 9, size[1]).expand(size).clone()
    truth[: size[0] // 2, : size[1] // 2] = 0
    found = panel(batch(*size, truth), truth[None, None] * 1.1, 0, 10.0, ImageInput())
    assert max(expected) <= SIDE_PX
    assert found.shape == (expected[0], 4 * expected[1], 3)
    shown = found[:, expected[1] : 2 * expected[1]]
    # Thinned, not averaged: depth between something and nothing is neither.
    step = size[1] / expected[1]
    middles = ((np.arange(expected[1]) + 0.5) * step).astype(int)
    np.testing.assert_array_equal(shown[-1:], colour(truth[-1:, middles].numpy(), 10.0))
    if expected[0] > 1:
        assert not shown[0, 0].any()


def test_panels__of_several_sizes_keep_theirs():
    panels = [np.full((r, 4 * c, 3), 7, np.uint8) for r, c in ((40, 56), (480, 360))]
    found = _stacked(panels)
    assert found.shape == (520, 1440, 3)
    assert (found[:40, : 4 * 56] == 7).all()
    assert not found[:40, 4 * 56 :].any()
    assert (found[40:] == 7).all()
