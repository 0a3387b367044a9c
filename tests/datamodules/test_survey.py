"""A look at a data set before a run."""

import numpy as np
import pytest

from datamodules.batch import Frame, Frames
from datamodules.errors import DataError
from datamodules.survey import survey, suspicions, unread, unusable

MAX_DEPTH = 10.0


class Given(Frames):
    """Depth maps in metres; None is a frame that cannot be read."""

    def __init__(self, depths, k=None) -> None:
        self.depths, self.k = depths, k
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.depths)

    def __getitem__(self, index: int) -> Frame:
        self.asked.append(index)
        depth = self.depths[index]
        if depth is None:
            raise DataError(f"frame {index} is broken")
        return Frame(np.zeros((*depth.shape, 3), np.uint8), depth, str(index), self.k)


def depths(low, high, count=6, size=(30, 40)) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.uniform(low, high, size).astype(np.float32) for _ in range(count)]


def look(given, count=8, **options):
    return survey(Given(given), count, MAX_DEPTH, **options)


def test_survey__counts_what_is_there():
    given = depths(1, 5, 4) + depths(1, 5, 1, (20, 20)) + [None]
    for depth in given[:5]:
        depth[:, :10] = 0
        depth[0, 10] = 12
    found = look(given)
    assert (found.frames, found.looked_at) == (6, 6)
    assert found.sizes == {(30, 40): 4, (20, 20): 1}
    assert found.pixels == 4 * 1200 + 400
    assert found.known == 4 * 900 + 200
    assert found.beyond == 5
    assert unread(found) == [
        "1 of 6 frames cannot be read, the first: frame 5 is broken"
    ]
    assert found.with_intrinsics == 0
    with_k = survey(Given(given, np.eye(3)), 8, MAX_DEPTH)
    assert with_k.with_intrinsics == 5


def test_survey__frames_are_spread_over_the_set():
    given = Given(depths(1, 5, 101, (2, 2)))
    survey(given, 5, MAX_DEPTH)
    assert given.asked == [0, 25, 50, 75, 100]


def test_survey__ends_when_time_is_over():
    given = Given(depths(1, 5, 100, (2, 2)))
    survey(given, 100, MAX_DEPTH, seconds=0)
    assert len(given.asked) < 100


def test_ordinary_depth__is_not_suspicious():
    found = look(depths(0.5, 6))
    assert suspicions(found, MAX_DEPTH, 1000) == []
    assert unusable(found) is None


@pytest.mark.parametrize(
    ("given", "scale", "words"),
    [
        (depths(15, 90), 256, "are beyond max_depth 10 m and do not count: median 5"),
        (depths(40, 90), 20, "may be millimetres: 1.3 m (depth_scale 1000)"),
        (
            depths(0.12, 0.2),
            10000,
            "the median depth is 0.16 m of max_depth 10 m; a",
        ),
        (depths(0.5, 1), 1000, "99 % of the depths are below 0.99"),
        ([np.eye(300, dtype=np.float32)] * 2, 1, "99.67% of the pixels are unknown"),
    ],
)
def test_suspicious_depth__is_said_in_words(given, scale, words):
    assert any(words in line for line in suspicions(look(given), MAX_DEPTH, scale))


@pytest.mark.parametrize(("stored", "scale"), [(65535, 1000), (6553, 1000)])
def test_sentinel__is_named_with_its_stored_number(stored, scale):
    given = depths(1, 5)
    for depth in given[:5]:
        depth[3:9] = np.float32(stored) / np.float32(scale)
    (line,) = suspicions(look(given), MAX_DEPTH, scale)
    assert f"(stored {stored}) is the largest depth of many pixels in 5 of 6" in line
    assert f"--data.unknown_values {stored}" in line
    # Of a data set without one unit there is no stored number to name.
    assert "stored" not in suspicions(look(given), MAX_DEPTH)[0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([None, None], "none of 2 frames can be read: frame 0 is broken"),
        ([np.zeros((4, 4), np.float32)], "none of 1 frames has a known depth"),
        (depths(11, 20), "every depth is beyond max_depth, the nearest at 11"),
    ],
)
def test_unusable__says_why(given, words):
    assert words in unusable(look(given))
