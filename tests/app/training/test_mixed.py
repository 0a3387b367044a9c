"""A mixed run as a person types it: tables and files by source, options, refusals."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import yaml

from app.training.command import main
from app.training.options import OPTIONS, resumed, scored
from datamodules import SyntheticDataModule
from models import DepthAnythingModule
from models.adapters.methods import METHODS
from tests.app.training.option_space import options
from tests.app.training.test_recipes import CONFIGS, SMALL
from tests.app.training.test_train import write_config
from tests.datamodules.layouts import write_kitti, write_nyu_lists

LAST = "runs/mixed/version_0/checkpoints/last.ckpt"
NAMES = ("rooms", "streets")
OWN = {
    "model.router": False,
    "model.router_lr": 0.5,
    "data.shares": {"rooms": 1.0, "streets": 2.0},
    "data.batch_size": 3,
    "data.num_workers": 1,
}


def write_mixed(folder: Path, weights: Path) -> Path:
    one = yaml.safe_load(write_config(folder, weights).read_text())
    sources = {}
    for name in NAMES:
        given = {**one["data"]["init_args"], "domain": name}
        sources[name] = {**one["data"], "init_args": given}
    config = {
        **one,
        "model": {
            "class_path": "models.MixedModule",
            "init_args": {"adapters": dict.fromkeys(NAMES, one["model"])},
        },
        "data": {
            "class_path": "datamodules.MixedDataModule",
            "init_args": {"sources": sources, "batch_size": 4},
        },
    }
    path = folder / "mixed.yaml"
    path.write_text(json.dumps(config))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_weights):
    """Folder, recipe and recorded options of a run of two epochs."""
    folder = tmp_path_factory.mktemp("run")
    recipe = str(write_mixed(folder, tiny_weights))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["fit", "--config", recipe])
    return folder, recipe, torch.load(folder / LAST, weights_only=True)[OPTIONS]


@pytest.fixture(autouse=True)
def _here(run, monkeypatch):
    monkeypatch.chdir(run[0])


def others(recorded):
    """Another value for each option of a mixed run that says what it does."""
    found = dict(OWN)
    kinds = {"model": DepthAnythingModule, "data": SyntheticDataModule}
    for name in NAMES:
        for under, part in (("model", "adapters"), ("data", "sources")):
            whole = f"{under}.{part}.{name}"
            now = {
                f"{under}{key.removeprefix(whole)}": value
                for key, value in recorded.items()
                if key.startswith(whole)
            }
            own = dict(options(kinds[under], under, now))
            if under == "model":
                own |= dict(options(METHODS["Lava"], "model.adapter", now))
            found |= {f"{whole}{k.removeprefix(under)}": v for k, v in own.items()}
    return found


def test_record__has_every_option_of_every_part(run):
    _, _, recorded = run
    wanted = set(others(recorded))
    assert {f"model.adapters.{n}.adapter.rank" for n in NAMES} <= wanted
    assert wanted <= set(recorded)


def test_every_option__is_told_apart(run):
    _, _, recorded = run
    before = {OPTIONS: recorded}
    for name, value in others(recorded).items():
        now = recorded | {name: value}
        assert value != recorded[name], name
        (line,) = resumed(now, before)
        assert name in line
        assert line.startswith("without effect") == name.endswith("start_depth")
        assert name in " ".join(scored(now, before))
    assert resumed(recorded, before) == scored(recorded, before) == []


def test_summary__has_each_adapter_before_and_after(run):
    folder, _, _ = run
    summary = json.loads((folder / "runs/mixed/version_0/summary.json").read_text())
    assert list(summary["adapters"]) == list(NAMES)
    for scores in summary["adapters"].values():
        assert scores["n_images"] == 5
        assert {*scores["before"]} == {*scores["after"]} >= {"delta1", "abs_rel"}
    assert 0 <= summary["routed"] <= 1
    metrics = (folder / "runs/mixed/version_0/metrics.csv").read_text().splitlines()[0]
    for column in ("val/rooms/delta1", "train/streets/silog", "val/abs_rel"):
        assert column in metrics.split(",")
    assert list((folder / "runs/mixed/version_0/previews").glob("*.png"))


def test_test__writes_results_of_each_source(run, capsys):
    folder, recipe, _ = run
    main(["test", "--config", recipe, "--ckpt_path", LAST])
    out = capsys.readouterr().out
    for name in NAMES:
        path = (folder / LAST).with_name(f"test_{name}_full.json")
        found = json.loads(path.read_text())
        assert (found["source"], found["n_images"]) == (name, 3)
        assert found["model"]["max_depth"] == {"rooms": 10, "streets": 80}[name]
        assert f"{name}: protocol full, 3 images" in out


def test_check__looks_at_each_source(run, capsys):
    main(["check", "--config", run[1]])
    out = capsys.readouterr().out
    assert "source rooms\nmax_depth 10" in out.replace("SyntheticDataModule, ", "")
    assert out.count("verdict: ") == 2


def test_resume__is_announced_and_goes_on(run, caplog):
    with caplog.at_level("INFO"):
        main(
            [
                *("fit", "--config", run[1], "--ckpt_path", "last"),
                *("--trainer.max_epochs", "3"),
                *("--model.adapters.rooms.optimisation.adapter_lr", "0.002"),
            ]
        )
    assert "rooms.optimisation.adapter_lr is 0.002, not 0.001" in caplog.text
    assert "rooms/adapter lr 0.002, not 0.001" in caplog.text
    content = torch.load(LAST, weights_only=True)
    assert content["epoch"] == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--model.adapters.rooms.adapter.rank", "3"], "adapter rooms is another one"),
        (["--model.router", "false"], "has a router, but model.router is false"),
        (
            ["--data.shares", '{"rooms": 0, "streets": 1}'],
            "data.shares rooms 0 must be above 0",
        ),
        (["--data.shares", '{"rooms": 1}'], "data.shares are of rooms, but"),
        (["--data.sources.rooms.image_size", "[42,42]"], "train at rooms [42, 42]"),
        (["--model.adapters.rooms.max_depth", "3"], "max_depth"),
        (["--model.adapters.rooms.weights", "tiny-rooms"], "SHA-256"),
    ],
)
def test_refusals__are_one_line(run, capsys, given, said):
    before = sorted(run[0].rglob("*"))
    with pytest.raises(SystemExit):
        main(["fit", "--config", run[1], "--ckpt_path", LAST, *given])
    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    assert said in error
    assert sorted(run[0].rglob("*")) == before


def test_refusal__of_a_mixed_module_on_plain_data(run, tiny_weights, tmp_path, capsys):
    single = yaml.safe_load(write_config(tmp_path, tiny_weights).read_text())
    mixed = yaml.safe_load(Path(run[1]).read_text())
    for model, data in ((single, mixed), (mixed, single)):
        path = tmp_path / "both.yaml"
        path.write_text(
            json.dumps({**mixed, "model": model["model"], "data": data["data"]})
        )
        with pytest.raises(SystemExit):
            main(["fit", "--config", str(path)])
        assert "do not go together" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(
            [
                "fit",
                "--config",
                str(write_config(tmp_path, tiny_weights)),
                "--ckpt_path",
                LAST,
            ]
        )
    assert "of a mixed run with the adapters rooms, streets" in capsys.readouterr().err


def test_recipe__mixed_of_nyu_and_kitti(tmp_path, monkeypatch, capsys):
    """The shipped recipe on tiny trees in the official layouts."""
    from models.artefacts.merged import save_network
    from models.networks import DepthNetwork, NetworkSpec

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = DepthNetwork(NetworkSpec("tiny", "v2", "relative", None))
    save_network(network, tmp_path / "base")
    given = ["--config", str(CONFIGS / "mixed.yaml"), "--data.batch_size", "2"]
    given += list(SMALL[4:])
    for name, write in (("indoor", write_nyu_lists), ("outdoor", write_kitti)):
        source, adapter = f"--data.sources.{name}", f"--model.adapters.{name}"
        given += [f"{source}.root", str(write(tmp_path / name))]
        given += [
            f"{source}.image_size",
            "[28,98]",
            f"{source}.augment.crop",
            "[28,56]",
        ]
        given += [f"{source}.num_workers", "0", f"{source}.batch_size", "2"]
        given += [
            f"{adapter}.weights",
            str(tmp_path / "base"),
            f"{adapter}.size",
            "tiny",
        ]
    main(["fit", *given, "--trainer.max_epochs", "1"])
    summary = json.loads((tmp_path / "runs/mixed/version_0/summary.json").read_text())
    protocols = {n: own["protocol"] for n, own in summary["adapters"].items()}
    assert protocols == {"indoor": "nyu_eigen", "outdoor": "kitti_eigen_garg_kb"}
    assert "WARNING: nyu_eigen has 654 images" in capsys.readouterr().out


def test_options__of_mixed_classes_are_all_here():
    """A new option of the two classes has to enter OWN."""
    import inspect

    from datamodules import MixedDataModule
    from models import MixedModule

    names = {f"model.{n}" for n in inspect.signature(MixedModule).parameters}
    names |= {f"data.{n}" for n in inspect.signature(MixedDataModule).parameters}
    linked = {"model.max_depth", "model.image_size", "model.adapters", "data.sources"}
    assert names - linked == set(OWN)
    assert not dataclasses.is_dataclass(MixedDataModule)
