import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.artefacts.merged import save_network
from models.networks import DepthNetwork, NetworkError, NetworkSpec, load_depth_anything
from models.networks.sky import filled
from tests.models.networks.depth_anything_3_by_hand import (
    ByHand,
    random_state,
    shapes,
)

RELATIVE = {"size": "tiny", "version": "v3", "kind": "relative"}


@pytest.fixture(scope="module")
def state():
    return random_state()


@pytest.fixture
def network(state, tmp_path) -> DepthNetwork:
    save_file({f"model.{k}": v for k, v in state.items()}, tmp_path / "w.safetensors")
    return load_depth_anything(tmp_path / "w.safetensors", **RELATIVE).eval()


def with_sky_far(depth, sky) -> np.ndarray:
    """The official rule, picture by picture, in NumPy."""
    depth, sky = depth.numpy().copy(), sky.numpy() >= 0.3
    for one, where in zip(depth, sky, strict=True):
        if where.sum() > 10 and (~where).sum() > 10:
            one[where] = np.quantile(one[~where], 0.99)
    return depth


@pytest.mark.parametrize("size", [(196, 196), (126, 84), (70, 112)])
@torch.no_grad()
def test_forward__equals_the_formulas(network, state, size):
    image = torch.randn(2, 3, *size)
    depth, sky = ByHand(state)(image)
    share = (sky >= 0.3).double().mean()
    assert 0.05 < share < 0.95
    assert depth.std() > 0.05 * depth.mean()
    network.double()  # what remains is a difference of rules
    torch.testing.assert_close(
        network.train()(image.double()).double(), depth, rtol=1e-5, atol=0
    )
    expected = torch.from_numpy(with_sky_far(depth, sky))
    found = network.eval()(image.double()).double()
    # A pixel at the threshold may fall on either side.
    same = (sky - 0.3).abs() > 1e-4
    torch.testing.assert_close(found[same], expected[same], rtol=1e-5, atol=0)


def test_forward__the_last_epsilon_is_its_own(network, state):
    network.pretrained.norm.eps = 1e-3
    image = torch.randn(1, 3, 70, 70)
    depth, _ = ByHand(state)(image)
    with torch.no_grad():
        found = network.train()(image).double()
    assert ((found - depth) / depth).abs().max() > 1e-5


def test_state__has_the_official_names_and_no_other(network, state):
    assert len(network.state_dict()) == len(shapes())
    problem = dict(state)
    del problem["head.scratch.sky_output_conv2.2.bias"]
    problem["head.scratch.refinenet4.resConfUnit1.conv1.bias"] = torch.zeros(32)
    with pytest.raises(NetworkError, match=r"missing .*sky_output_conv2\.2\.bias"):
        load(problem, network)


def load(state, network):
    import tempfile
    from pathlib import Path

    from models.artefacts.published.weights import load_weights

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.pth"
        torch.save(state, path)
        load_weights(network, path)


@pytest.mark.parametrize("prefix", ["", "model.", "module.model."])
def test_load__official_names_however_wrapped(state, network, prefix):
    other = DepthNetwork(network.spec)
    load({f"{prefix}{name}": value for name, value in state.items()}, other)
    ours = network.state_dict()
    assert all(torch.equal(v, ours[k]) for k, v in other.state_dict().items())


def test_save__is_in_the_official_layout_and_comes_back(state, network, tmp_path):
    save_network(network, tmp_path / "out")
    written = load_file(tmp_path / "out/model.safetensors")
    assert written.keys() == {f"model.{name}" for name in state}
    assert all(torch.equal(written[f"model.{k}"], v) for k, v in state.items())
    assert '"model_name": "da3mono-large"' in (tmp_path / "out/config.json").read_text()
    again = load_depth_anything(tmp_path / "out", **RELATIVE)
    ours = network.state_dict()
    assert all(torch.equal(v, ours[k]) for k, v in again.state_dict().items())


def test_load__where_version_2_is_asked_for_says_version_3(state):
    other = DepthNetwork(NetworkSpec("tiny", "v2", "relative"))
    with pytest.raises(NetworkError, match=r"monocular Depth Anything 3.*version v3"):
        load(state, other)


def test_output__has_no_end_and_relative_is_depth(network, state):
    metric = DepthNetwork(NetworkSpec("tiny", "v3", "metric", 1.0)).train()
    metric.load_state_dict(network.state_dict())
    image = torch.randn(1, 3, 42, 56)
    with torch.no_grad():
        depth = metric(image)
    assert depth.max() > 1.0
    assert (network.unit, metric.unit) == ("depth", "metres")


@torch.no_grad()
def test_start_at_depth__shifts_the_scale_and_nothing_else(network, state):
    metric = DepthNetwork(NetworkSpec("tiny", "v3", "metric", 80.0)).eval()
    metric.load_state_dict(network.state_dict())
    metric.start_at_depth(20.0)
    image = torch.randn(2, 3, 42, 56)
    ratio = metric(image) / network(image)
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio))
    assert abs(ratio.mean() - 1) > 0.1
    assert 5 < metric(image).median() < 80
    before = network.state_dict()
    changed = [
        k for k, v in metric.state_dict().items() if not torch.equal(v, before[k])
    ]
    assert changed == ["depth_head.scratch.output_conv2.2.bias"]
    assert not metric.training


def test_training__leaves_the_sky_alone_and_fills_nothing(network):
    image = torch.randn(1, 3, 42, 56)
    network.train()(image).log().sum().backward()
    without = {n for n, p in network.named_parameters() if p.grad is None}
    sky = "depth_head.scratch.sky_output_conv2"
    assert without == {
        f"{sky}.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")
    }


def test_filled__each_picture_by_its_own_and_few_pixels_are_left():
    depth = torch.rand(3, 1, 20, 30) + 1
    sky = torch.zeros_like(depth)
    sky[0, :, :5] = 0.3
    sky[1, :, 0, :10] = 1.0  # no more than ten
    found = filled(depth, sky)
    expected = torch.from_numpy(with_sky_far(depth, sky))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert torch.equal(found[1:], depth[1:])
    assert found[0, :, :5].unique().numel() == 1


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_filled__all_sky_or_none_is_left_and_differentiable(value):
    depth = (torch.rand(1, 1, 6, 7) + 1).requires_grad_()
    found = filled(depth, torch.full_like(depth, value))
    assert torch.equal(found, depth)
    found.sum().backward()
    assert torch.equal(depth.grad, torch.ones_like(depth))


@pytest.mark.parametrize("size", ["S", "B", "G"])
def test_spec__sizes_that_are_networks_for_many_views_are_refused(size):
    with pytest.raises(NetworkError, match=f"size {size}; use one of tiny, L"):
        NetworkSpec(size, "v3", "relative")


@pytest.mark.parametrize("focal", [0.0, float("nan"), -300.0])
def test_spec__canonical_focal_must_be_pixels(focal):
    with pytest.raises(NetworkError, match="canonical_focal_px"):
        NetworkSpec("L", "v3", "metric", 200.0, focal)
