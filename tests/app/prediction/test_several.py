"""Each picture with its own adapter: as with that one alone, or one line."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch

from app.prediction.command import main
from models.artefacts.mixed import ROUTER
from tests.models.mixed.runs import data, fit, module

PICTURES = ("a.png", "b.png", "c.png", "d.png")
LISTED = [f"{name},rooms" for name in PICTURES]
OF_EACH = {"a.png": "rooms", "b.png": "streets", "c.png": "rooms", "d.png": None}


@pytest.fixture(scope="module")
def root(tmp_path_factory, tiny_weights):
    """Pictures of one size, a mixed run's checkpoint, and its adapters as folders."""
    folder = tmp_path_factory.mktemp("several")
    rng = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    for name in PICTURES:
        pixels = rng.integers(0, 255, (30, 44, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "pictures" / name), pixels)
    torch.manual_seed(0)
    model = module(tiny_weights)
    torch.nn.init.normal_(model.router.linear.weight, std=0.3)
    found = fit(model, data(), max_epochs=1, limit_val_batches=0)
    found.save_checkpoint(folder / "mixed.ckpt")
    shutil.copytree(tiny_weights, folder / "base")
    export = ["--export", str(folder / "adapters"), "--export-format", "adapter"]
    main(["--model", str(folder / "mixed.ckpt"), *export])
    lines = [f"{name},{adapter or ''}" for name, adapter in OF_EACH.items()]
    (folder / "of.csv").write_text("\n".join(["image,adapter", *lines]))
    return folder


def predict(root, out, *given, model="base", several=True, pictures="pictures"):
    fixed = ["--accelerator", "cpu", "--devices", "1", "--workers", "0"]
    fixed += ["--formats", "npy", "png", "--output", str(root / out)]
    fixed += ["--model", str(root / model)]
    if several:
        fixed += ["--adapters", str(root / "adapters")]
    main([str(root / pictures), *map(str, given), *fixed])
    return json.loads((root / out / "predictions.json").read_text())


def depth(root, out, name):
    return np.load(root / out / f"{name}.depth.npy")


@pytest.fixture(scope="module")
def alone(root):
    """What each adapter, and the base, says of every picture, batch by batch of 1."""
    for name in ("rooms", "streets"):
        model = f"adapters/{name}"
        predict(root, name, "--batch-size", "1", model=model, several=False)
    predict(root, "plain", "--batch-size", "1", several=False)
    return {"rooms": "rooms", "streets": "streets", None: "plain"}


def test_layout__is_that_of_adapter_folders_and_a_router(root):
    found = {
        p.relative_to(root / "adapters").as_posix()
        for p in (root / "adapters").rglob("*")
    }
    files = {
        f"{n}/adapter.{s}"
        for n in ("rooms", "streets")
        for s in ("json", "safetensors")
    }
    assert found == {"rooms", "streets", "router.safetensors", *files}
    depths = [
        json.loads((root / f"adapters/{n}/adapter.json").read_text())
        for n in ("rooms", "streets")
    ]
    assert [own["network"]["max_depth"] for own in depths] == [10.0, 80.0]


@pytest.mark.parametrize("model", ["base", "mixed.ckpt"])
def test_table__each_picture_is_as_with_its_adapter_alone(root, alone, model):
    out = f"table_{model}"
    several = model == "base"
    content = predict(
        root, out, "--adapter-of", root / "of.csv", model=model, several=several
    )
    for name, adapter in OF_EACH.items():
        assert content["files"][name].get("adapter") == adapter
        # Float32: alone, increments are folded into the weights, and batches differ.
        expected = depth(root, alone[adapter], name)
        np.testing.assert_allclose(depth(root, out, name), expected, rtol=1e-4)
    assert content["header"]["max_depth"] == {"rooms": 10.0, "streets": 80.0}


def test_mixed_batch__is_to_the_byte_that_of_one_adapter_in_batches_of_one(root):
    """The same product for each picture: the others of its batch do not matter."""
    one = ("--batch-size", "1")
    predict(root, "each", "--adapter-of", root / "of.csv", *one)
    for adapter in ("rooms", "streets"):
        predict(root, f"only_{adapter}", "--adapter", adapter, *one)
        for name in (n for n, a in OF_EACH.items() if a == adapter):
            for kind in ("npy", "png"):
                file = f"{name}.depth.{kind}"
                if kind == "png" and adapter == "rooms":
                    continue  # in the units of the furthest adapter of a run
                expected = (root / f"only_{adapter}" / file).read_bytes()
                assert (root / "each" / file).read_bytes() == expected


def test_route__choice_and_confidence_stand_in_the_ledger(root, capsys):
    content = predict(root, "routed", "--route")
    assert {e["adapter"] for e in content["files"].values()} <= {"rooms", "streets"}
    for name, entry in content["files"].items():
        assert 0.5 <= entry["confidence"] <= 1
        own = predict(root, f"as_{entry['adapter']}", "--adapter", entry["adapter"])
        assert "confidence" not in own["files"][name]
        expected = depth(root, f"as_{entry['adapter']}", name)
        np.testing.assert_allclose(depth(root, "routed", name), expected, rtol=1e-4)
    capsys.readouterr()
    predict(root, "routed", "--route")
    assert "4 of 4 are there already" in capsys.readouterr().out


def test_one_adapter__is_handed_on_as_any_network(root, alone):
    for model, given in (
        ("mixed.ckpt", ()),
        ("base", ("--adapters", str(root / "adapters"))),
    ):
        out = root / f"merged_{model[:4]}"
        main(
            [
                "--model",
                str(root / model),
                *given,
                "--adapter",
                "streets",
                "--export",
                str(out),
            ]
        )
        predict(root, f"of_{out.name}", model=out.name, several=False)
        expected = depth(root, "streets", "a.png")
        np.testing.assert_allclose(
            depth(root, f"of_{out.name}", "a.png"), expected, rtol=1e-4
        )


def test_header__other_choices_are_refused_by_name(root, capsys):
    predict(root, "kept", "--adapter-of", root / "of.csv")
    table = (root / "of.csv").read_text()
    (root / "other.csv").write_text(table.replace("a.png,rooms", "a.png,streets"))
    for given, name in (
        (("--adapter-of", root / "other.csv"), "adapter_of"),
        (("--route",), "route"),
        (("--adapter", "rooms"), "adapter not given, now rooms"),
    ):
        said = refused(root, capsys, *given, out="kept")
        assert name in said
        assert "give another --output, or --overwrite" in said


def refused(root, capsys, *given, out="bad", **options):
    """The one line of a refusal, which writes nothing."""
    before = sorted(root.rglob("*"))
    capsys.readouterr()
    with pytest.raises(SystemExit):
        predict(root, out, *given, **options)
    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    assert sorted(root.rglob("*")) == before
    return error


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "has the adapters rooms, streets; say which with --adapter NAME"),
        (("--adapter", "caves"), "has no adapter 'caves'; it has rooms, streets"),
        (("--adapter", "rooms", "--route"), "--adapter and --route both choose"),
        (("--adapter-of", "none.csv"), "none.csv: there is no such file"),
    ],
)
def test_refusals__of_choices(root, capsys, given, said):
    assert said in refused(root, capsys, *given)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["image,adapter", *LISTED, "e.png,rooms"], "not among those to predict (e.p"),
        (["image,adapter", "a.png,rooms"], "no line for 3 of 4 pictures (b.png"),
        (["image,adapter", *LISTED[1:], "a.png,caves"], "has no adapter 'caves'"),
        (["image,adapter", "a.png,rooms", "a.png,streets"], "line 3 gives a.png the"),
        (["image,adapter", ",rooms"], "line 2 names no image"),
        (["image,depth", "a.png,1"], "must be image,adapter (apart by"),
        (["image,adapter"], "has no line below its first"),
        (["image,adapter", "a.png,"], "names no adapter; predict with --model alone"),
    ],
)
def test_refusals__of_tables(root, capsys, lines, said):
    (root / "bad.csv").write_text("\n".join(lines))
    assert said in refused(root, capsys, "--adapter-of", root / "bad.csv")


def test_refusals__of_bases_and_routers(root, capsys, tmp_path):
    route = ("--route",)
    for model, several, given, said in (
        ("base", False, ("--adapter", "rooms"), "is one network; give --adapters DIR"),
        ("adapters/rooms", True, ("--adapter", "rooms"), "no whole network"),
        ("mixed.ckpt", True, route, "has adapters of its own"),
    ):
        assert said in refused(root, capsys, *given, model=model, several=several)
    kept = root / "adapters/router.safetensors"
    moved = kept.rename(tmp_path / "router")
    try:
        assert "has no router, which --route" in refused(root, capsys, *route)
    finally:
        moved.rename(kept)
    away = (root / "adapters/streets").rename(tmp_path / "streets")
    try:
        assert "has no adapter 'streets'; it has rooms" in refused(root, capsys, *route)
    finally:
        away.rename(root / "adapters/streets")
    assert ROUTER in kept.name


def test_another_base__is_refused_with_both_fingerprints(root, capsys, tmp_path):
    from models.artefacts.merged import save_network
    from tests.conftest import random_tiny

    torch.manual_seed(9)
    save_network(random_tiny(), root / "another")
    said = refused(root, capsys, "--adapter", "rooms", model="another")
    assert "rooms: " in said
    assert "was trained on a base with SHA-256" in said
    shutil.rmtree(root / "another")


def test_export__of_several_into_one_form_names_them(root, capsys):
    for more in ([], ["--export-format", "onnx"]):
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main(
                [
                    "--model",
                    str(root / "mixed.ckpt"),
                    "--export",
                    str(root / "x"),
                    *more,
                ]
            )
        error = capsys.readouterr().err
        assert "has the adapters rooms, streets; name one with --adapter" in error
        assert not (root / "x").exists()
