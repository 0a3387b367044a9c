import dataclasses
import math
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.comparison.calibration import calibrate
from benchmarks.comparison.cell import Cell, run
from benchmarks.comparison.methods import METHODS, at_budget, at_rank, shapes
from benchmarks.comparison.plan import GRID, QUICK, Plan, next_rate
from benchmarks.comparison.probes import (
    effective_rank,
    gradient_noise,
    increments,
    orthogonality_defect,
)
from benchmarks.comparison.real import store_real
from benchmarks.comparison.reporting.markdown import p_text, plus_minus
from benchmarks.comparison.reporting.statistics import (
    Estimate,
    difference,
    estimate,
    holm,
)
from benchmarks.comparison.tasks import (
    SOURCE,
    TASKS,
    StoredFrames,
    TaskData,
    store,
)
from benchmarks.method_comparison import QUICK_SETTINGS
from models import DepthAnythingModule
from models.adapters import Lava, LoRA, Tucker, adapt
from models.losses import silog
from tests.conftest import lacks, write_rgbd

ROOT = Path(__file__).parents[2]
TINY = 1_665_409
"""Parameters of the tiny network, adapters not counted."""


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    lengths = {"train": 8, "val": 4, "test": 4}
    size = QUICK_SETTINGS.image_size
    with ThreadPoolExecutor(1) as executor:
        for task in (TASKS["streets"], SOURCE):
            assert sum(store(folder, task, lengths, size, executor)) == 16
        assert not list(store(folder, SOURCE, lengths, size, executor))
    return folder


@lacks("build networks that only have shapes, with timm 1.0.20")
@pytest.mark.slow
@pytest.mark.parametrize(
    "parts", [("methods",), ("methods", "ablations", "costs")], ids=len
)
def test_quick_comparison__from_the_command_line(tmp_path, parts):
    command = [sys.executable, "-m", "benchmarks.method_comparison", "--quick"]
    command += ["--out", str(tmp_path), "--workers", "2"]
    command += ["--parts", *parts]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    report = (tmp_path / "report.md").read_text()
    headings = ["delta1 of every method", "streets, 8 frames, 1.5 %"]
    for heading in headings + ["Rank"] * ("ablations" in parts):
        assert f"## {heading}" in report
    for method in QUICK.methods:
        assert f"| {METHODS[method].title} |" in report
    for lines in report.split("\n\n"):
        if lines.startswith("|"):
            # Every row of a table has a cell for every column.
            assert len({line.count("|") for line in lines.splitlines()}) == 1
    for plot in ("accuracy", "curves", "forgetting"):
        assert (tmp_path / f"{plot}.png").stat().st_size > 10_000
    if parts == ("methods",):
        return
    # What is finished is not run again, and other settings are not mixed in.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    other = subprocess.run(
        [*command, "--weights", "else"], cwd=ROOT, capture_output=True, text=True
    )
    assert other.returncode != 0
    assert other.stderr.strip().endswith("that they were made with")


def test_run__is_the_same_to_the_bit(frames, one_thread):
    cell = Cell("streets", "lava", 8, 3, 1e-2, share=0.015)
    first, second = (run(cell, QUICK_SETTINGS, frames) for _ in range(2))
    del first["seconds"], second["seconds"]
    assert first == second
    other = run(dataclasses.replace(cell, seed=4), QUICK_SETTINGS, frames)
    assert other["losses"] != first["losses"]


@settings(deadline=None, max_examples=20)
@given(
    share=st.floats(0.004, 0.2),
    config=st.sampled_from([Lava(), LoRA(), Tucker(), Lava(rank=1, alpha=0.5)]),
)
def test_budget__is_used_up_with_equal_ranks(share, config):
    layers = shapes("tiny", config)
    budget = int(share * TINY)
    chosen = at_budget(config, "tiny", budget)
    ranks = {
        name: chosen.for_layer(name).rank
        for name in layers
        if any(re.search(pattern, name) for pattern in chosen.targets)
    }

    def cost(name, rank):
        return dataclasses.replace(config, rank=rank).count(layers[name])

    spent = sum(cost(name, rank) for name, rank in ranks.items())
    # What is left over does not pay for one rank more in the dearest layer.
    most = max(ranks.values())
    dearest = max(cost(name, most + 1) - cost(name, most) for name in layers)
    assert 0 <= budget - spent < dearest
    lowest = min(
        ranks.get(name, 0)
        for name, shape in layers.items()
        if ranks.get(name, 0) < shape.max_rank
    )
    assert most - lowest <= 1
    assert all(chosen.for_layer(name).scale == config.scale for name in ranks)


def test_rank__is_the_same_or_all_there_is():
    chosen = at_rank(LoRA(), "tiny", 32)
    layers = shapes("tiny", LoRA())
    for name, shape in layers.items():
        assert chosen.for_layer(name).rank == min(32, shape.max_rank)


@given(peak=st.sampled_from(GRID), first=st.sampled_from(GRID))
def test_climb__ends_at_the_peak(peak, first):
    scores: dict[float, float] = {}
    while (rate := next_rate(scores, first)) is not None:
        scores[rate] = -abs(math.log(rate / peak))
    assert max(scores, key=lambda rate: scores[rate]) == peak


def test_plan__scores_no_seed_that_rates_were_chosen_with():
    plan = Plan()
    assert not set(plan.tuning_seeds) & set(range(max(plan.seeds, plan.rank_seeds)))
    assert {cell.seed for cell in plan.tuning({}, ["methods"])} == {*plan.tuning_seeds}


def test_estimate__equals_the_textbook():
    values = [0.5, 0.6, 0.4, 0.55]
    # Student's t for 3 degrees of freedom at 97.5 %: 3.182 (any table).
    half = 3.182446 * np.std(values, ddof=1) / 2
    assert estimate(values).mean == pytest.approx(0.5125)
    assert estimate(values).half == pytest.approx(half, rel=1e-6)
    other = [0.45, 0.58, 0.41, 0.5]
    found = difference(values, other)
    assert found.p == pytest.approx(stats.ttest_rel(values, other).pvalue)
    assert math.isnan(difference([1.0, 2.0], [0.5, 1.5]).p)


def test_holm__equals_its_definition():
    # Sorted: .01 x 4, .02 x 3, .03 x 2, .04 x 1, each no less than the one before.
    assert holm([0.04, 0.01, math.nan, 0.03, 0.02])[:2] == pytest.approx([0.06, 0.04])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert math.isnan(holm([math.nan])[0])


def test_numbers__in_markdown():
    assert plus_minus(Estimate(0.12345, 0.01), sign=True) == "+0.123 ± 0.010"
    assert plus_minus(Estimate(0.5, math.nan)) == "0.500"
    assert [p_text(p) for p in (0.0001, 0.04, math.nan)] == ["<.001", ".040", ""]


def test_effective_rank__of_known_spectra():
    assert effective_rank(torch.eye(5, 7)) == pytest.approx(5)
    assert effective_rank(torch.ones(4, 6)) == pytest.approx(1, abs=1e-6)
    # p = (3/4, 1/4): exp(3/4 ln 4/3 + 1/4 ln 4) = 4 / 3^(3/4).
    uneven = torch.diag(torch.tensor([3.0, 1.0]))
    assert effective_rank(uneven) == pytest.approx(4 / 3**0.75)


def test_increments__of_a_known_change(tiny):
    before = {name: tensor.clone() for name, tensor in tiny.state_dict().items()}
    adapt(tiny, Lava(rank=2, targets=[r"blocks\.0\.attn\.proj$"]))
    adapter = tiny.pretrained.blocks[0].attn.proj.adapter
    assert orthogonality_defect(tiny) is None or orthogonality_defect(tiny) < 1e-6
    with torch.no_grad():
        adapter.up.zero_()[:2] = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    found = increments(tiny, before)
    layer = tiny.pretrained.blocks[0].attn.proj
    delta = adapter.delta(layer.base_weight).detach()
    whole = [
        w for n, w in before.items() if n.endswith(("qkv.weight", "attn.proj.weight"))
    ]
    norm = math.sqrt(sum(float(w.square().sum()) for w in whole))
    assert found["attention"]["relative_norm"] == pytest.approx(
        float(delta.norm()) / norm, rel=1e-5
    )
    assert found["mlp"] == {"relative_norm": 0.0, "effective_rank": 0.0}
    # Columns (1, 0) and (1, 1): cosine 1/sqrt(2); those of `down` are orthogonal.
    assert orthogonality_defect(tiny) == pytest.approx(math.sqrt(0.5) / 2, abs=1e-6)


def test_gradient_noise__of_equal_and_of_opposite_batches(tiny):
    tiny.requires_grad_(False)
    tiny.last_conv.requires_grad_(True)
    image = torch.randn(1, 3, 28, 28)
    near, far = (torch.full((1, 1, 28, 28), depth) for depth in (0.1, 9.9))
    batches = [
        {"image": image, "depth": depth, "valid": depth > 0} for depth in (near, far)
    ]
    assert gradient_noise(tiny, [batches[0]] * 3, 0.5) == pytest.approx(0, abs=1e-9)
    rows = []
    for batch in batches:
        loss = silog(tiny(image), batch["depth"], batch["valid"], 0.5)
        gradients = torch.autograd.grad(loss, [*tiny.last_conv.parameters()])
        rows.append(torch.cat([g.flatten() for g in gradients]).numpy())
    variance = np.var(rows, axis=0, ddof=1).sum() / np.mean(np.square(rows).sum(1))
    assert gradient_noise(tiny, batches, 0.5) == pytest.approx(variance, rel=1e-4)


def test_calibration__finds_scale_and_shift(frames):
    data = TaskData(frames, SOURCE, QUICK_SETTINGS.image_size, 4, 8, 0)

    class Known(DepthAnythingModule):
        """Predicts (truth - 0.3) / 1.5 for the frames in their order."""

        def forward(self, image):
            return (next(truths) - 0.3) / 1.5

    truths = iter([item["depth"][None] for item in data.plain_items()])
    module = Known(10.0, QUICK_SETTINGS.image_size, "tiny", weights="tiny-rooms")
    assert calibrate(module, data) == pytest.approx((1.5, 0.3), rel=1e-4)


def test_real_frames__leave_one_data_set_out(tmp_path):
    root = write_rgbd(tmp_path / "rgbd", 3)
    lines = ["image,depth"]
    for i, name in enumerate(["nyu_0", "nyu_1", "tum_0"]):
        (root / f"images/a/{i}.jpg").rename(root / f"{name}.jpg")
        lines.append(f"{name}.jpg,depths/a/{i}.png")
    table = root / "frames.csv"
    table.write_text("\n".join(lines))
    assert store_real(tmp_path, table, (28, 42)) == {"real_nyu": 1, "real_tum": 2}
    held_out, others = (
        StoredFrames(tmp_path, f"real_nyu_{part}") for part in ("test", "train")
    )
    # `write_rgbd` puts frame i at i + 1 metres.
    assert [float(np.median(held_out[i].depth)) for i in range(2)] == [1, 2]
    assert [float(np.median(frame.depth)) for frame in (others[0],)] == [3]
    assert held_out[0].image.shape == (28, 42, 3)
    table.write_text("\n".join(lines[:3]))
    with pytest.raises(SystemExit, match="there must be two"):
        store_real(tmp_path, table, (28, 42))
