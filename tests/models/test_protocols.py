"""Scores against a plain evaluator, written from the published code's rules.

The reference works on one image at a time with literal index boxes, as the scripts of
ZoeDepth, BTS and Depth Anything V2 do (`datamodules/protocols.py` says which).
"""

import json

import cv2
import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from datamodules.base import DepthDataModule
from datamodules.batch import DataError, Frame, Frames
from datamodules.protocols import KITTI, NYU_EIGEN, full, window_box
from datamodules.sizes import fixed, input_size, lower_bound
from datamodules.transforms import Augment, EvalTransform
from models import DepthAnythingModule
from models.artefacts.merged import save_network
from models.errors import OptionError
from models.evaluation import met
from models.metrics import METRICS, per_image
from models.scoring import Scoring
from tests.conftest import REAL_DATA, needs_real_data, random_tiny
from tests.models.published import by_hand

SIZE = (28, 42)
PROTOCOLS = {"nyu_eigen": NYU_EIGEN, "full": full(10.0), **KITTI}


class InMemory(Frames):
    def __init__(self, frames):
        self.frames = frames

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, index):
        return self.frames[index]


class InMemoryModule(DepthDataModule):
    def __init__(self, frames, protocol, batch_size=2):
        super().__init__(SIZE, protocol.max_depth, batch_size, 0, 0, Augment())
        self._given, self._protocol = frames, protocol

    @property
    def protocol(self):
        return self._protocol

    def frames(self, split):
        return InMemory(self._given)


def random_frames(name):
    rng = np.random.default_rng(0)
    sizes = (
        [(375, 1242), (370, 1226), (376, 1241)] if "kitti" in name else [(480, 640)] * 3
    )
    frames = []
    for i, size in enumerate(sizes):
        image = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
        depth = rng.uniform(0, PROTOCOLS[name].max_depth * 1.1, size).astype(np.float32)
        depth[rng.random(size) < 0.5] = 0
        frames.append(Frame(cv2.blur(image, (9, 9)), depth, f"{i}"))
    return frames


def real_frames(name):
    wanted = ("kitti_",) if "kitti" in name else ("nyu_metric3d",)
    frames = []
    for entry in json.loads((REAL_DATA / "index.json").read_text()):
        if entry["id"].startswith(wanted):
            image = cv2.imread(str(REAL_DATA / entry["rgb"]))[..., ::-1]
            stored = cv2.imread(str(REAL_DATA / entry["depth"]), cv2.IMREAD_UNCHANGED)
            depth = stored.astype(np.float32) / entry["depth_scale"]
            frames.append(Frame(np.ascontiguousarray(image), depth, entry["id"]))
    return frames


def bilinear(values, size):
    """align_corners=True, along one axis after the other."""
    for axis, n in enumerate(size):
        old = values.shape[axis]
        place = np.arange(n) * (old - 1) / (n - 1)
        low = np.minimum(place.astype(int), old - 2)
        weight = (place - low).reshape(-1, *[1] * (1 - axis))
        first, second = (np.take(values, low + k, axis) for k in (0, 1))
        values = first * (1 - weight) + second * weight
    return values


def evaluate(name, prediction, gt):
    """The nine metrics of one image; prediction is the network's, at its own size."""
    rows, cols = gt.shape
    if name == "kitti_da2":
        pred = bilinear(prediction, gt.shape)
        mask = (gt >= 1e-3) & (gt <= 80)
    elif name == "nyu_eigen":
        pred = bilinear(prediction, (480, 640)).clip(1e-3, 10)
        mask = np.zeros(gt.shape, bool)
        mask[45:471, 41:601] = True
        mask &= (gt > 1e-3) & (gt < 10)
    elif name == "full":
        pred = bilinear(prediction, gt.shape).clip(1e-3, 10)
        mask = (gt > 1e-3) & (gt < 10)
    else:
        top, left = int(rows - 352), int((cols - 1216) / 2)
        pred = bilinear(prediction, (352, 1216))
        if name == "kitti_eigen_garg_kb":
            gt = gt[top : top + 352, left : left + 1216]
        else:
            canvas = np.zeros(gt.shape)
            canvas[top : top + 352, left : left + 1216] = pred
            pred = canvas
        pred = pred.clip(1e-3, 80)
        rows, cols = gt.shape
        mask = np.zeros(gt.shape, bool)
        mask[
            int(0.40810811 * rows) : int(0.99189189 * rows),
            int(0.03594771 * cols) : int(0.96405229 * cols),
        ] = True
        mask &= (gt > 1e-3) & (gt < 80)
    p, g = pred[mask], gt[mask].astype(np.float64)
    metrics = by_hand(p, g)
    if name == "kitti_da2":
        e = np.log(p) - np.log(g)
        metrics["silog"] = np.sqrt((e**2).mean() - 0.5 * e.mean() ** 2)
    return metrics


def module(weights, protocol, **options) -> DepthAnythingModule:
    learner = DepthAnythingModule(
        protocol.max_depth, SIZE, size="tiny", weights=str(weights), **options
    )
    return learner.eval()


def run_test(learner, data) -> dict[str, float]:
    """Lightning's own test loop over a data module."""
    run = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    run.test(learner, data, verbose=False)
    found = run.callback_metrics
    return {name: float(found[f"test/{name}"]) for name in METRICS}


def expected(learner, name, frames, predict=None):
    transform, rows = EvalTransform(SIZE, PROTOCOLS[name]), []
    for frame in frames:
        image = transform(frame)["image"][None]
        with torch.no_grad():
            depth = (predict or learner)(image)[0, 0].double().numpy()
        rows.append(evaluate(name, depth, frame.depth))
    return {metric: np.mean([row[metric] for row in rows]) for metric in METRICS}


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize(
    "frames_of", [random_frames, pytest.param(real_frames, marks=needs_real_data)]
)
def test_score__equals_the_plain_evaluator(tiny_weights, name, frames_of):
    frames = frames_of(name)
    learner = module(tiny_weights, PROTOCOLS[name])
    found = run_test(learner, InMemoryModule(frames, PROTOCOLS[name]))
    assert learner.images["test"] == len(frames)
    assert found == pytest.approx(expected(learner, name, frames), rel=1e-6)


@pytest.mark.parametrize("name", ["nyu_eigen", "kitti_eigen_garg_kb"])
def test_score__two_batches_equal_one(tiny_weights, name):
    frames = random_frames(name)
    learner = module(tiny_weights, PROTOCOLS[name])
    rows = [
        run_test(learner, InMemoryModule(frames, PROTOCOLS[name], size))
        for size in (1, 3)
    ]
    assert rows[0] == pytest.approx(rows[1], rel=1e-6)


def test_flip__averages_with_the_mirrored_image(tiny_weights):
    frames = random_frames("nyu_eigen")
    learner = module(tiny_weights, NYU_EIGEN)
    learner.scoring = Scoring(flip_tta=True)

    def mirrored(image):
        return (learner(image) + learner(image.flip(-1)).flip(-1)) / 2

    found = run_test(learner, InMemoryModule(frames, NYU_EIGEN))
    assert found == pytest.approx(
        expected(learner, "nyu_eigen", frames, mirrored), rel=1e-6
    )
    assert found != pytest.approx(expected(learner, "nyu_eigen", frames), rel=1e-6)


def test_disparity__scores_a_relative_network_and_no_other(tmp_path, tiny_weights):
    frames = random_frames("nyu_eigen")
    data = InMemoryModule(frames, NYU_EIGEN)
    with pytest.raises(OptionError, match="holds a metric network"):
        module(tiny_weights, NYU_EIGEN, kind="relative")
    save_network(random_tiny("relative", None), tmp_path / "relative")
    learner = module(tmp_path / "relative", NYU_EIGEN, kind="relative")
    with pytest.raises(OptionError, match="give --align disparity"):
        run_test(learner, data)
    learner.scoring = Scoring(align="disparity")
    row = run_test(learner, data)
    # A fit can always choose one depth for all pixels.
    assert 0 < row["delta1"] < 1
    metric = module(tiny_weights, NYU_EIGEN)
    metric.scoring = Scoring(align="disparity")
    with pytest.raises(OptionError, match="for relative networks"):
        run_test(metric, data)
    with pytest.raises(OptionError, match="not trained here"):
        Trainer(accelerator="cpu", logger=False, max_epochs=1).fit(learner, data)


def test_boxes__are_the_literal_ones():
    """Of the publications, on NYU's 480x640 and KITTI's most frequent 375x1242."""
    assert NYU_EIGEN.box(480, 640) == (45, 471, 41, 601)
    assert KITTI["kitti_eigen_garg_kb"].box(375, 1242) == (166, 372, 56, 1185)
    assert KITTI["kitti_eigen_garg_full"].box(375, 1242) == (153, 371, 44, 1197)
    assert KITTI["kitti_da2"].box(375, 1242) == (0, 375, 0, 1242)
    assert window_box("kb", 375, 1242) == (23, 375, 13, 1229)
    assert window_box("nyu_border", 480, 640) == (45, 472, 43, 608)


@pytest.mark.parametrize(
    "size", [(375, 1242), (376, 1241), (370, 1226), (374, 1238), (370, 1224)]
)
def test_garg_full__lies_within_the_kb_window_on_all_of_kitti(size):
    inner, outer = KITTI["kitti_eigen_garg_full"].box(*size), window_box("kb", *size)
    assert inner.top >= outer.top
    assert inner.bottom <= outer.bottom
    assert inner.left >= outer.left
    assert inner.right <= outer.right


@pytest.mark.parametrize(
    ("size", "result"),
    [
        ((480, 640), (518, 686)),
        ((375, 1242), (518, 1722)),
        ((352, 1216), (518, 1792)),
        ((427, 561), (518, 686)),
        ((400, 600), (518, 784)),
        ((300, 1000), (518, 1722)),
        ((640, 480), (686, 518)),
    ],
)
def test_lower_bound__sizes_of_the_official_transform(size, result):
    """Sizes measured with Depth Anything V2's own `Resize`."""
    assert lower_bound(size, (518, 518), 14) == result


@pytest.mark.parametrize(
    ("size", "result"),
    [
        ((480, 640), (378, 504)),
        ((375, 1242), (154, 504)),
        ((1080, 1920), (280, 504)),
        ((287, 504), (294, 504)),  # halfway is up
        ((640, 480), (504, 378)),
        ((100, 120), (420, 504)),
        ((3, 2000), (14, 504)),  # theirs would be a single pixel
    ],
)
def test_upper_bound__sizes_of_depth_anything_3(size, result):
    """Sizes measured with Depth Anything 3's own `InputProcessor`."""
    assert input_size(size, "max504", 14) == result


@pytest.mark.parametrize("wanted", ["native", "max504", 500, (512, 256)])
def test_fixed__is_in_whole_patches(wanted):
    assert all(side % 16 == 0 for side in fixed(wanted, 16))


def test_window__of_a_frame_it_is_not_defined_on_is_refused():
    with pytest.raises(DataError, match="no KB window"):
        window_box("kb", 192, 640)
    with pytest.raises(DataError, match="defined on frames of 640x480"):
        NYU_EIGEN.box(288, 384)
    with pytest.raises(DataError, match="defined on frames of 640x480"):
        window_box("nyu_border", 224, 224)


def test_valid__inclusive_ends_and_too_few_pixels():
    depth = np.full((20, 20), 80, np.float32)
    assert KITTI["kitti_da2"].valid(depth).all()
    assert not full(80).valid(depth).any()
    depth[:] = 0
    depth[0, :9] = 5
    assert not KITTI["kitti_da2"].valid(depth).any()
    depth[0, 9] = 5
    assert KITTI["kitti_da2"].valid(depth).sum() == 10


@pytest.mark.parametrize("name", PROTOCOLS)
def test_scale_shift__below_0_counts_as_the_nearest_depth(name):
    """Where a protocol does not clamp, too: no ratio there is meant."""
    predicted = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0]).view(1, 1, 1, 5)
    target = torch.tensor([9.0, 3.0, 1.0, 0.6, 0.5]).view(1, 1, 1, 5)
    line = np.polyval(np.polyfit([5, 4, 3, 2, 1], [9, 3, 1, 0.6, 0.5], 1), predicted)
    assert line[..., -1] == pytest.approx(-1.06)
    valid, size = target > 0, torch.tensor([[1, 5]])
    batch = {"depth": target, "valid": valid, "size": size}
    depth = met(predicted, batch, PROTOCOLS[name], "scale_shift")
    np.testing.assert_allclose(depth[..., :-1], line[..., :-1], rtol=1e-6)
    assert float(depth[..., -1]) == pytest.approx(PROTOCOLS[name].min_depth)
    scores = per_image(depth, target, valid)
    assert scores.isfinite().all()
    # Of 6.70, 4.76, 2.82, 0.88 and less than 0 none is within 25 %.
    assert scores[0, 0] == 0
