"""What is depth's own of many adapters: ranges, cameras, bases, families."""

import dataclasses

import pytest
import torch

from models import DepthAnythingModule, DINOv2Module
from models.adapters import AdapterError, Lava, LoRA
from models.artefacts.adapter_folder import save_adapter
from models.artefacts.merged import save_network
from models.artefacts.mixed import read_several
from models.artefacts.opening import open_model
from models.errors import CheckpointError
from models.networks import DepthNetwork, NetworkSpec
from models.opening_bank import open_bank
from tests.conftest import random_tiny
from tests.models.adapters.bank.banks import off_start

SIZE = (28, 42)
FAMILIES = ("saturating", "exponential", "new head")


def weights_of(folder, family):
    """Random weights of a family's base, in a file of it."""
    if family == "exponential":
        network = DepthNetwork(NetworkSpec("tiny", "v3", "metric", 20.0, 300.0))
        save_network(network, folder / "base")
        return str(folder / "base")
    network = random_tiny("relative", None)
    if family == "saturating":
        save_network(network, folder / "base")
        return str(folder / "base")
    path = folder / "dinov2.pth"
    torch.save(network.pretrained.state_dict(), path)
    return str(path)


def alone(weights, family, config, max_depth, **options):
    kinds = {"exponential": {"version": "v3"}, "saturating": {}, "new head": {}}
    module = DINOv2Module if family == "new head" else DepthAnythingModule
    given = {"size": "tiny", "weights": weights, "adapter": config, **kinds[family]}
    return module(max_depth, SIZE, **given, **options)


@pytest.fixture(scope="module", params=FAMILIES)
def several(request, tmp_path_factory):
    """A folder of three adapters of one base, and each on a network of its own."""
    folder, family = tmp_path_factory.mktemp("several"), request.param
    torch.manual_seed(0)
    weights = weights_of(folder, family)
    camera = {"camera": "canonical", "canonical_focal_px": 300.0}
    # Depth Anything 3's metric network has a camera, whatever is trained on it.
    any_camera = camera if family == "exponential" else {}
    kinds = {
        "near": (Lava(rank=2), 5.0, any_camera),
        "far": (LoRA(rank=3), 80.0, any_camera),
        "seen": (Lava(rank=1), 20.0, camera),
    }
    networks = {}
    for seed, (name, (config, max_depth, options)) in enumerate(kinds.items()):
        module = alone(weights, family, config, max_depth, **options)
        off_start(module.network, seed, 0.02)
        save_adapter(module.network, module.record, folder / "adapters" / name)
        networks[name] = module.network.eval()
    return folder / "adapters", weights, networks


def test_mixed_batch__has_each_ones_range_and_network(several):
    folder, weights, networks = several
    bank = open_bank(read_several(folder), weights)
    names = ["far", "near", "seen", "near"]
    image = torch.randn(4, 3, *SIZE)
    with torch.no_grad(), bank.select(names):
        depth = bank(image)
    with torch.no_grad():
        for i, name in enumerate(names):
            expected = networks[name](image[i : i + 1])
            # Float32: products of a batch are summed in another order.
            torch.testing.assert_close(depth[i : i + 1], expected, rtol=1e-4, atol=1e-5)


def test_camera__counts_for_those_that_have_one(several):
    folder, weights, networks = several
    bank = open_bank(read_several(folder), weights)
    canonical = {n: networks[n].canonical_focal_px for n in networks}
    names = ["near", "seen"]
    with bank.select(names):
        factors = bank.focal_factors(torch.tensor([600.0, 150.0])).flatten().tolist()
    focals = dict(zip(names, (600.0, 150.0), strict=True))
    expected = [focals[n] / canonical[n] if canonical[n] else 1.0 for n in names]
    assert factors == expected
    assert expected[1] == 0.5


def test_base__alone_only_where_it_predicts_metres(several, tmp_path):
    folder, weights, _ = several
    bank = open_bank(read_several(folder), weights)
    if bank.base is None:
        for names in (None, ["near", None]):
            with (
                pytest.raises(AdapterError, match="name an adapter for each picture"),
                bank.select(names),
            ):
                pass
        return
    plain = open_model(weights).network.eval()
    image = torch.randn(2, 3, *SIZE)
    with torch.no_grad(), bank.select(["near", None]):
        torch.testing.assert_close(
            bank(image)[1:], plain(image[1:]), rtol=1e-4, atol=1e-5
        )


def test_refusals__are_one_line(several):
    folder, weights, _ = several
    read = read_several(folder)
    bank = open_bank(read, weights)
    near = read.adapters["near"]
    spec = dataclasses.replace(near.record.network, size="L")
    other = dataclasses.replace(near.record, network=spec)
    for name, adapter, said in (
        ("near", near, "has an adapter 'near' already"),
        ("more", dataclasses.replace(near, record=None), "up to which depth"),
        ("more", dataclasses.replace(near, record=other), "the base is tiny,"),
        ("more", dataclasses.replace(near, base_sha256="0" * 64), "same base"),
    ):
        with pytest.raises(AdapterError, match=said) as error:
            bank.add(name, adapter)
        assert "\n" not in str(error.value)
    with (
        bank.select(["near", "far"]),
        pytest.raises(AdapterError, match="selected for a batch of 3"),
    ):
        bank(torch.randn(3, 3, *SIZE))
    with (
        bank.select("near"),
        pytest.raises(AdapterError, match="near is in use by 1 running batches"),
    ):
        bank.adapters.remove("near")
    with pytest.raises(CheckpointError, match="has no adapter 'x'; it has far, near"):
        read_several(folder, ["x"])
