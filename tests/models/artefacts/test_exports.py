"""What is handed on, opened by those who have only the other side."""

import json
import resource
import signal
from contextlib import nullcontext

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file

from datamodules import extras
from datamodules.extras import ExtraError
from models.adapters import Lava, adapt, merge
from models.artefacts import form as forms
from models.artefacts import form_named
from models.artefacts import onnx as onnx_form
from models.artefacts.form import ExportOptions, Opened, difference
from models.artefacts.opening import open_model
from models.errors import ExportError
from models.networks import DepthNetwork, NetworkSpec
from models.networks.exportable import open_sizes
from tests.conftest import onnx_of_any_size

# What torch's own exporter says of itself.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)
SIZE = (70, 98)


@pytest.fixture
def network(tiny):
    """Adapted and merged, so that an export that forgets the adapter is seen."""
    adapt(tiny, Lava(rank=2))
    with torch.no_grad():
        for name, parameter in tiny.named_parameters():
            if ".adapter." in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    merge(tiny)
    return tiny.eval()


def save(network, folder, form, image_size=SIZE, **options):
    opened = Opened(network, None, None, "network")
    return forms.save(
        form_named(form), opened, folder, ExportOptions(image_size, **options)
    )


def official_keys(depth: int) -> set[str]:
    """The names in Depth Anything V2's files, written out from its modules."""
    pairs = ["patch_embed.proj", "norm"]
    for i in range(depth):
        inside = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
        pairs += [f"blocks.{i}.{name}" for name in inside]
    keys = {f"pretrained.{p}.{kind}" for p in pairs for kind in ("weight", "bias")}
    keys |= {f"pretrained.{name}" for name in ("cls_token", "pos_embed", "mask_token")}
    keys |= {f"pretrained.blocks.{i}.ls{k}.gamma" for i in range(depth) for k in (1, 2)}
    head = [f"projects.{i}" for i in range(4)] + [
        f"resize_layers.{i}" for i in (0, 1, 3)
    ]
    for i in (1, 2, 3, 4):
        head.append(f"scratch.refinenet{i}.out_conv")
        for unit in (1, 2):
            names = (f"resConfUnit{unit}.conv{k}" for k in (1, 2))
            head += [f"scratch.refinenet{i}.{name}" for name in names]
    head += [f"scratch.output_conv{name}" for name in ("1", "2.0", "2.2")]
    keys |= {f"depth_head.{p}.{kind}" for p in head for kind in ("weight", "bias")}
    return keys | {f"depth_head.scratch.layer{i}_rn.weight" for i in (1, 2, 3, 4)}


def test_depth_anything__has_exactly_the_official_keys(tmp_path):
    network = DepthNetwork(NetworkSpec("S", "v2", "metric", 20.0))
    assert save(network, tmp_path / "out", "depth-anything") == 0
    state = load_file(tmp_path / "out/model.safetensors")
    assert state.keys() == official_keys(12)
    assert len(state) == 239  # counted in upstream's own network
    assert state["pretrained.mask_token"].shape == (1, 384)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(("kind", "max_depth"), [("metric", 20.0), ("relative", None)])
def test_transformers__pipeline_sees_what_we_see(tmp_path, version, kind, max_depth):
    network = DepthNetwork(NetworkSpec("tiny", version, kind, max_depth)).eval()
    with torch.no_grad():
        network.last_conv.weight.mul_(20)
        network.last_conv.bias.fill_(0.5)
    side = network.spec.preset.pretrain_px
    save(network, tmp_path / "out", "transformers", (side, side))
    pipe = transformers.pipeline("depth-estimation", model=str(tmp_path / "out"))
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (side, side, 3), dtype=np.uint8)
    found = pipe(Image.fromarray(pixels))["predicted_depth"].squeeze()
    inputs = pipe.image_processor(Image.fromarray(pixels), return_tensors="pt")
    with torch.no_grad():
        expected = network(inputs["pixel_values"])[0, 0]
    assert expected.std() > 0.01 * expected.mean()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_transformers__elsewhere_differs_by_the_interpolation_rule(network, tmp_path):
    save(network, tmp_path / "out", "transformers")
    model = transformers.AutoModelForDepthEstimation.from_pretrained(tmp_path / "out")
    x = torch.randn(1, 3, 98, 126)
    with torch.no_grad():
        theirs, ours = model.eval()(x).predicted_depth, network(x)[:, 0]
    assert 0 < ((theirs - ours).abs() / ours).max() < 0.2


@pytest.mark.slow  # the matrix exports and compares at two sizes and batches
@onnx_of_any_size
def test_onnx__three_sizes_and_batches(network, tmp_path):
    assert save(network, tmp_path / "out", "onnx") < 1e-4
    path = tmp_path / "out/model.onnx"
    onnx.checker.check_model(onnx.load(path))
    assert onnx.load(path).opset_import[0].version == onnx_form.OPSET
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in ((70, 98), (196, 196), (140, 196)):
        for batch in (1, 3):
            x = torch.randn(batch, 3, *size)
            found = session.run(None, {"image": x.numpy()})[0]
            with torch.no_grad():
                expected = network(x).numpy()
            np.testing.assert_allclose(found, expected, rtol=1e-3)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["image_mean"] == [0.485, 0.456, 0.406]
    assert config["max_depth"] == 10.0


@pytest.mark.slow
@onnx_of_any_size
def test_onnx__half_is_half_the_size_and_leaves_the_network_alone(network, tmp_path):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert save(network, tmp_path / "half", "onnx", half=True) < 2e-2
    reopened = onnx_form.OnnxNetwork(tmp_path / "half/model.onnx")
    x = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        torch.testing.assert_close(reopened(x), network(x), rtol=2e-2, atol=0)
    whole = 4 * sum(value.numel() for value in before.values())
    assert (tmp_path / "half/model.onnx").stat().st_size < 0.65 * whole
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_open_sizes__changes_nothing_but_the_way(network):
    for size in ((70, 98), (196, 196), (196, 98)):
        x = torch.randn(1, 3, *size)
        with torch.no_grad():
            expected = network(x)
            with open_sizes(network):
                found = network(x)
            assert torch.equal(network(x), expected)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["depth-anything", "transformers"])
def test_export__that_differs_is_not_kept(network, tmp_path, monkeypatch, form):
    monkeypatch.setattr(forms, "difference", lambda *_: 0.5)
    with pytest.raises(ExportError, match=r"differs from the network by 5.0e-01"):
        save(network, tmp_path / "out", form)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("broken", [0, 1])
def test_export__that_is_not_finite_on_one_probe_is_not_kept(
    network, tmp_path, monkeypatch, broken
):
    found = [1e-7, 1e-7, 1e-7, 1e-7]
    found[broken] = float("nan")
    monkeypatch.setattr(forms, "difference", lambda *_: found.pop(0))
    with pytest.raises(ExportError, match="differs from the network by nan"):
        save(network, tmp_path / "out", "depth-anything")
    assert list(tmp_path.iterdir()) == []


def test_difference__sees_a_wrong_pixel(network):
    x = torch.randn(1, 3, 42, 56)

    def wrong(image):
        depth = network(image).clone()
        depth[..., 3, 4] *= 1.01
        return depth

    assert difference(network, network, x) == 0
    assert difference(network, wrong, x) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merged__says_what_few_bits_round_away(tiny, dtype):
    tiny.to(dtype)
    adapt(tiny, Lava(rank=2))
    with torch.no_grad():
        for name, parameter in tiny.named_parameters():
            if ".adapter." in name:
                parameter.mul_(0.05).add_(1e-3 * torch.randn_like(parameter))
    opened = Opened(tiny, None, None, "network")
    few = dtype == torch.bfloat16
    said = pytest.warns(UserWarning, match="of a layer's increment away")
    with said if few else nullcontext():
        opened.merged()


def test_export__into_a_folder_that_is_taken_is_refused(network, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(ExportError, match="exists and is not empty"):
        save(network, tmp_path, "depth-anything")
    assert [p.name for p in tmp_path.iterdir()] == ["note.txt"]


def test_export__what_a_form_cannot_hold_is_refused(tmp_path):
    network = DepthNetwork(NetworkSpec("tiny", "v2", "metric", 7.5))
    with pytest.raises(ExportError, match=r"whole number of metres, not 7.5"):
        save(network, tmp_path / "out", "transformers")
    with pytest.raises(ExportError, match="onnx export alone"):
        save(network, tmp_path / "out", "transformers", half=True)
    assert not (tmp_path / "out").exists()


def test_export__missing_packages_are_named(network, tmp_path, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ExtraError, match=r"needs onnx, onnxruntime, onnxscript; pip"):
        save(network, tmp_path / "out", "onnx")


def test_export__on_a_full_disk_is_one_error_and_leaves_nothing(network, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(ExportError, match=r"OUT cannot be written .*too large"):
            save(network, tmp_path / "OUT", "depth-anything")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "form",
    [
        "depth-anything",
        "transformers",
        pytest.param("onnx", marks=[onnx_of_any_size, pytest.mark.slow]),
    ],
)
def test_form__says_how_larger_pictures_are_made_smaller(network, tmp_path, form):
    opened = Opened(network, None, SIZE, "network", "cubic")
    kind = form_named(form)
    forms.save(kind, opened, tmp_path / "out", ExportOptions(SIZE))
    found = open_model(str(tmp_path / "out"))
    assert found.image_input.shrink == "cubic"
    # And again, of what was exported.
    if form != "onnx":
        forms.save(kind, found, tmp_path / "again", ExportOptions(SIZE))
        assert open_model(str(tmp_path / "again")).image_input.shrink == "cubic"
