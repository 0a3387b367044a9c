import numpy as np
import pytest
import torch
import transformers

from models.artefacts.published.transformers_keys import from_transformers
from models.networks import DepthNetwork, NetworkError, NetworkSpec
from models.networks.presets import PRESETS
from tests.conftest import OLD_TORCH


def reference(size: str, version: str, kind: str, max_depth: float | None):
    """The independent implementation of `transformers`, random weights."""
    preset = PRESETS[size]
    config = transformers.DepthAnythingConfig(
        backbone_config=transformers.Dinov2Config(
            hidden_size=preset.embed_dim,
            num_hidden_layers=preset.depth,
            num_attention_heads=preset.num_heads,
            image_size=518,
            patch_size=14,
            out_indices=[tap + 1 for tap in preset.taps(version)],
            apply_layernorm=True,
            reshape_hidden_states=False,
        ),
        reassemble_hidden_size=preset.embed_dim,
        neck_hidden_sizes=list(preset.out_channels),
        fusion_hidden_size=preset.features,
        depth_estimation_type=kind,
        max_depth=max_depth or 1,
    )
    model = transformers.DepthAnythingForDepthEstimation(config).eval()
    with torch.no_grad():
        # Its own initialisation is so small that the output hardly varies.
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embeddings" not in name:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
        model.head.conv3.bias.fill_(1.0)
    return model


@pytest.mark.parametrize(
    ("version", "kind", "max_depth"),
    [
        ("v1", "relative", None),
        pytest.param("v2", "relative", None, marks=pytest.mark.slow),
        ("v2", "metric", 20),
    ],
)
def test_forward__equals_transformers_at_518(tmp_path, version, kind, max_depth):
    """Through a saved folder, so that the key mapping is tested with it."""
    from models.networks import load_depth_anything

    model = reference("S", version, kind, max_depth)
    model.save_pretrained(tmp_path)
    network = load_depth_anything(
        tmp_path, size="S", version=version, kind=kind, max_depth=max_depth
    ).eval()
    x = torch.randn(1, 3, 518, 518)
    with torch.no_grad():
        expected, ours = model(x).predicted_depth, network(x)[:, 0]
    assert expected.std() > 0.05 * expected.mean()
    # Two orders of float32 summation; 5e-7 was seen against upstream's own code.
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.75, which torch's bicubic uses."""
    a, d = -0.75, np.abs(distance)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def resample(values: np.ndarray, n: int, axis: int) -> np.ndarray:
    """The official rule along one axis: scale (n + 0.1) / grid, no antialiasing."""
    grid = values.shape[axis]
    source = (np.arange(n) + 0.5) * grid / (n + 0.1) - 0.5
    first = np.floor(source).astype(int)
    weights = np.zeros((n, grid))
    for tap in range(-1, 3):
        place = np.clip(first + tap, 0, grid - 1)
        np.add.at(weights, (np.arange(n), place), cubic(source - (first + tap)))
    return np.moveaxis(np.tensordot(weights, values, (1, axis)), 0, axis)


@pytest.mark.parametrize(
    "size",
    [
        (392, 518),
        pytest.param((350, 1204), marks=pytest.mark.slow),
        pytest.param((518, 686), marks=pytest.mark.slow),
    ],
)
def test_forward__equals_transformers_with_the_official_rule_at_other_sizes(size):
    """All but the position embedding is theirs; that is re-derived above, in NumPy."""
    model = reference("S", "v2", "relative", None)
    network = DepthNetwork(NetworkSpec("S", "v2", "relative")).eval()
    network.load_state_dict(from_transformers(model.state_dict()), strict=False)
    embeddings = model.backbone.embeddings

    def official(tokens, height, width):
        table = embeddings.position_embeddings.detach().double()
        grid = table[0, 1:].reshape(37, 37, -1).numpy()
        grid = resample(resample(grid, height // 14, 0), width // 14, 1)
        rest = torch.from_numpy(grid.reshape(1, -1, grid.shape[-1]))
        return torch.cat([table[:, :1], rest], 1).float()

    embeddings.interpolate_pos_encoding = official
    x = torch.randn(1, 3, *size)
    with torch.no_grad():
        expected, ours = model(x).predicted_depth, network(x)[:, 0]
    assert expected.std() > 0.05 * expected.mean()
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("patches", [(28, 37), (25, 86), (37, 49), (9, 12)])
def test_position_embedding__follows_the_official_rule(patches):
    encoder = DepthNetwork(NetworkSpec("S", "v2", "relative")).pretrained
    embedding = encoder.pos_embed.detach().double()
    grid = embedding[0, 1:].reshape(37, 37, -1).numpy()
    expected = resample(resample(grid, patches[0], 0), patches[1], 1)
    ours = encoder.position_embedding(*patches).detach()
    np.testing.assert_allclose(
        ours[0, 1:], expected.reshape(-1, expected.shape[-1]), atol=1e-6
    )
    assert torch.equal(ours[:, 0], encoder.pos_embed[:, 0])


def test_position_embedding__is_untouched_on_its_own_grid(tiny):
    assert tiny.pretrained.position_embedding(14, 14) is tiny.pretrained.pos_embed


def test_metric__doubling_max_depth_doubles_the_depth(tiny):
    other = DepthNetwork(NetworkSpec("tiny", "v2", "metric", 20.0)).eval()
    other.load_state_dict(tiny.state_dict())
    x = torch.randn(2, 3, 42, 56)
    assert torch.equal(other(x), 2 * tiny(x))


def test_forward__shape_and_range(tiny):
    depth = tiny(torch.randn(2, 3, 42, 56))
    assert depth.shape == (2, 1, 42, 56)
    assert depth.dtype == torch.float32
    assert depth.min() > 0
    assert depth.max() < 10


def test_forward__autocast_keeps_the_last_step_in_float32(tiny):
    with torch.autocast("cpu", torch.bfloat16):
        depth = tiny(torch.randn(1, 3, 42, 56))
    assert depth.dtype == torch.float32
    assert not torch.equal(depth, depth.bfloat16().float())


def test_forward__other_multiples_are_refused(tiny):
    with pytest.raises(NetworkError, match=r"40x56 px.*nearest are 42x56"):
        tiny(torch.randn(1, 3, 40, 56))


def test_start_at_depth__every_pixel_starts_there(tiny):
    tiny.start_at_depth(2.5)
    depth = tiny(torch.randn(1, 3, 42, 56))
    torch.testing.assert_close(depth, torch.full_like(depth, 2.5), rtol=0.05, atol=0)
    with pytest.raises(NetworkError, match="between 0 and the network's max_depth"):
        tiny.start_at_depth(10.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "XL"}, "size 'XL'"),
        ({"version": "v4"}, "version 'v4'"),
        ({"kind": "metric"}, "needs max_depth"),
        ({"kind": "metric", "max_depth": -1.0}, "above 0"),
        ({"kind": "relative", "max_depth": 10.0}, "means nothing"),
    ],
)
def test_spec__wrong_ones_are_named(options, message):
    given = {"size": "S", "version": "v2", "kind": "relative", **options}
    with pytest.raises(NetworkError, match=message):
        NetworkSpec(**given)


def without_memory(size) -> DepthNetwork:
    """A network that only has shapes."""
    try:
        with torch.device("meta"):
            return DepthNetwork(NetworkSpec(size, "v2", "relative"))
    except RuntimeError:
        if OLD_TORCH:
            pytest.skip("timm 1.0.20 reads numbers from tensors as it builds a network")
        raise


@pytest.mark.parametrize(
    ("size", "encoder", "head"),
    [("S", 22.06, 2.73), ("B", 86.58, 10.89), ("L", 304.37, 30.95)],
)
def test_parameters__match_the_published_sizes(size, encoder, head):
    """Counted on upstream's own networks, in millions."""
    network = without_memory(size)
    for part, expected in ((network.pretrained, encoder), (network.depth_head, head)):
        count = sum(p.numel() for p in part.parameters()) / 1e6
        assert count == pytest.approx(expected, abs=0.006)


def test_giant__has_the_official_feed_forward_names():
    keys = without_memory("G").state_dict()
    assert keys["pretrained.blocks.0.mlp.w12.weight"].shape == (2 * 4096, 1536)
    assert keys["pretrained.blocks.0.mlp.w3.weight"].shape == (1536, 4096)
