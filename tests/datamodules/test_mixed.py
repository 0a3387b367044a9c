"""Several sources in one stream: shares, orders, processes, places."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.errors import DataError
from datamodules.mixed import MixedDataModule
from datamodules.mixing import MixedSampler, Shuffled, counts_of, spread
from datamodules.synthetic import SyntheticDataModule
from datamodules.transforms import Augment
from datamodules.worlds import WorldsDataModule

SHAPES = [(28, 42), (42, 28)]
LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=4)


def sources(lengths, shares=None):
    shares = shares or [float(n) for n in lengths]
    return [
        Shuffled(n, s, seed)
        for seed, (n, s) in enumerate(zip(lengths, shares, strict=True))
    ]


def epochs(sampler, count):
    found = []
    for epoch in range(count):
        sampler.set_epoch(epoch)
        found.append(list(sampler))
    return found


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=5), st.integers(1, 200))
def test_counts__are_the_shares_to_within_one(shares, length):
    counts = counts_of(shares, length)
    assert sum(counts) == length
    exact = np.array(shares) / sum(shares) * length
    assert np.abs(counts - exact).max() < 1


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(any))
def test_spread__every_stretch_has_each_share_to_within_two(counts):
    which = spread(counts)
    for source, n in enumerate(counts):
        so_far = np.cumsum(which == source)
        exact = np.arange(1, len(which) + 1) * n / len(which)
        assert so_far[-1] == n
        assert np.abs(so_far - exact).max() < 2


@given(LENGTHS, st.data())
def test_sampler__without_shares_has_every_frame_once_an_epoch(lengths, data):
    found = epochs(MixedSampler(sources(lengths), 2, 1, 0), 2)
    every = [(s, i) for s, n in enumerate(lengths) for i in range(n)]
    for epoch, samples in enumerate(found):
        assert sorted((s, i) for s, _, i in samples) == every
        assert {e for _, e, _ in samples} == {epoch}


@given(LENGTHS, st.data())
def test_sampler__no_frame_comes_again_before_the_others_came(lengths, data):
    shares = [data.draw(st.floats(0.1, 1)) for _ in lengths]
    drawn = [
        s for e in epochs(MixedSampler(sources(lengths, shares), 2, 1, 0), 3) for s in e
    ]
    for source, n in enumerate(lengths):
        own = [(epoch, index) for s, epoch, index in drawn if s == source]
        for start in range(0, len(own), n):
            part = own[start : start + n]
            assert {epoch for epoch, _ in part} <= {start // n}
            assert len({index for _, index in part}) == len(part)


@given(LENGTHS, st.integers(1, 3), st.integers(1, 4), st.integers(0, 5))
def test_sampler__shares_of_processes_and_resumption(lengths, processes, size, skip):
    parts = [
        MixedSampler(sources(lengths), size, processes, rank)
        for rank in range(processes)
    ]
    found = [epochs(part, 2)[1] for part in parts]
    assert {len(own) for own in found} == {len(parts[0])}
    whole = MixedSampler(sources(lengths), size, 1, 0)
    whole.set_epoch(1)
    expected = list(whole)
    if sum(lengths) % processes == 0:
        assert sorted(s for own in found for s in own) == sorted(expected)
    # A step's batches, of all processes, are the next stretch of the stream.
    for step in range(len(expected) // (size * processes)):
        own = slice(step * size, (step + 1) * size)
        seen = [sample for part in found for sample in part[own]]
        if sum(lengths) % processes == 0:
            assert seen == expected[step * size * processes :][: size * processes]
    parts[0].skip = skip
    assert list(parts[0]) == found[0][skip:]
    assert list(parts[0]) == found[0]


def test_sampler__every_processs_batch_has_all_sources():
    for processes in (1, 2, 4):
        for rank in range(processes):
            sampler = MixedSampler(sources([32, 32]), 4, processes, rank)
            own = [source for source, _, _ in sampler]
            batches = [own[i : i + 4] for i in range(0, len(own), 4)]
            assert all(batch.count(0) == 2 for batch in batches)


def test_source__has_the_order_that_its_own_run_has():
    alone = SyntheticDataModule("rooms", 9, 2, 2, (28, 42), seed=4)
    alone.setup("fit")
    sampler = alone.train_dataloader().sampler
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        own = [index for _, index in sampler]
        assert Shuffled(9, 1.0, 4).order(epoch) == own


def synthetic(domain="rooms", **options):
    return SyntheticDataModule(
        domain, 6, 2, 2, options.pop("size", (28, 42)), **options
    )


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: MixedDataModule({}), "names no data"),
        (
            lambda: MixedDataModule({"a": synthetic()}, {"a": 0.0}),
            "data.shares a 0 must be above 0",
        ),
        (
            lambda: MixedDataModule({"a": synthetic()}, {"b": 1.0}),
            "data.shares are of b, but the sources are a",
        ),
        (
            lambda: MixedDataModule({"a": synthetic(), "b": synthetic(size=(28, 28))}),
            r"train at a \[28, 42\], b \[28, 28\]",
        ),
        (
            lambda: MixedDataModule({"a": WorldsDataModule(shapes=SHAPES)}),
            r"train at a \[28, 42\] and \[42, 28\]",
        ),
        (
            lambda: MixedDataModule({"a": MixedDataModule({"b": synthetic()})}),
            "a is mixed itself",
        ),
    ],
)
def test_sources__that_cannot_be_mixed_are_refused(made, said):
    with pytest.raises(DataError, match=said) as error:
        made()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "data",
    [
        SyntheticDataModule("rooms", 2, 1, 1, (28, 42), augment=Augment(crop=(28, 56))),
        WorldsDataModule(
            shapes=SHAPES,
            image_size=(28, 42),
            augment=Augment(crop=(28, 42)),
        ),
    ],
)
def test_crop__larger_than_what_it_is_cut_from_is_refused(data):
    with pytest.raises(DataError, match=r"augment crop \[28, .* is cut from images of"):
        data.setup("fit")


def test_batches__have_each_source_and_say_which():
    crop = synthetic("streets", size=(56, 84), augment=Augment(crop=(28, 42)))
    data = MixedDataModule({"indoor": synthetic(), "outdoor": crop}, batch_size=4)
    data.setup("fit")
    for batch in data.train_dataloader():
        assert sorted(batch["adapter"]) == ["indoor"] * 2 + ["outdoor"] * 2
        domains = {"indoor": "rooms", "outdoor": "streets"}
        for name, path in zip(batch["adapter"], batch["path"], strict=True):
            assert path.startswith(domains[name])
    names = [batch["adapter"][0] for one in data.val_dataloader() for batch in one]
    assert names == ["indoor", "outdoor"]
