"""No option is taken and ignored: each is applied, refused, or announced by name."""

import dataclasses
import json

import pytest
import torch
from lightning.pytorch import Trainer

import datamodules
from app.training.command import main
from app.training.options import OPTIONS, PLACES, resumed, scored
from models import DepthAnythingModule
from models.adapters import AdapterError
from models.adapters.methods import METHODS
from models.adapters.state import differences
from models.scoring import Scoring
from tests.app.training.option_space import options
from tests.app.training.test_train import write_config

LAST = "runs/small/version_0/checkpoints/last.ckpt"
WHOLE = {"model": DepthAnythingModule, "data": datamodules.SyntheticDataModule}
QUICK = ("model.start_depth", "data.augment.flip")
EVERY = [
    name for under, kind in WHOLE.items() for name, _ in options(kind, under, {})
] + [f"model.adapter.{field.name}" for field in dataclasses.fields(METHODS["Lava"])]


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_weights):
    """Folder, recipe and recorded options of a run of two epochs."""
    folder = tmp_path_factory.mktemp("run")
    recipe = str(write_config(folder, tiny_weights))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["fit", "--config", recipe])
    return folder, recipe, torch.load(folder / LAST, weights_only=True)[OPTIONS]


def others(recorded):
    """Another value for each option that the run had."""
    found = {}
    for under, kind in WHOLE.items():
        found |= dict(options(kind, under, recorded))
    return found | dict(options(METHODS["Lava"], "model.adapter", recorded))


def test_record__has_every_option(run):
    _, _, recorded = run
    assert set(others(recorded)) == set(EVERY) <= set(recorded)
    assert not [name for name in EVERY if name.startswith(PLACES)]


@pytest.mark.parametrize("name", EVERY)
def test_every_option__is_told_apart(run, name):
    _, _, recorded = run
    value = others(recorded)[name]
    assert value != recorded[name]
    now, before = recorded | {name: value}, {OPTIONS: recorded}
    assert name in " ".join(resumed(now, before))
    if not name.startswith("model.adapter."):  # the module tells of those itself
        assert name in " ".join(scored(now, before))
    assert resumed(recorded, before) == scored(recorded, before) == []


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_option__of_an_adapter_is_told_apart(method):
    config = method()
    now = {f"adapter.{k}": v for k, v in dataclasses.asdict(config).items()}
    for name, value in options(method, "adapter", now):
        field = name.partition(".")[2]
        try:
            changed = dataclasses.replace(config, **{field: value})
        except AdapterError:  # refused whenever it is given
            continue
        (found,) = differences(changed, config)
        assert found.startswith(f"{field} is ")


@pytest.mark.parametrize("command", ["fit", "test"])
@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in EVERY],
)
def test_option__is_applied_and_announced_or_refused(
    run, capsys, caplog, monkeypatch, recwarn, name, command
):
    folder, recipe, recorded = run
    value = others(recorded)[name]
    monkeypatch.chdir(folder)
    ran = []
    monkeypatch.setattr(Trainer, "_fit_impl", lambda *a, **k: ran.append(k))
    (folder / LAST).with_name("test_full.json").unlink(missing_ok=True)
    given = value if isinstance(value, str) else json.dumps(value)
    more = ["--ckpt_path", LAST, "--trainer.max_epochs", "4", f"--{name}", given]
    before = sorted(folder.rglob("*"))
    refused = False
    try:
        with caplog.at_level("INFO"):
            main([command, "--config", recipe, *more])
    except SystemExit:
        refused = True
    error = capsys.readouterr().err
    said = " ".join([error, caplog.text, *(str(w.message) for w in recwarn)])
    last = name.rpartition(".")[2]
    assert last in said or str(value) in said, said
    if refused:
        assert error.count("error: ") == 1
        assert not ran
        assert sorted(folder.rglob("*")) == before
    elif command == "fit":
        assert ran
        assert name in said


def test_scoring__is_in_the_results_and_their_name(run, monkeypatch, capsys):
    folder, recipe, _ = run
    monkeypatch.chdir(folder)
    before = dataclasses.asdict(Scoring())
    for name, value, suffix in (
        ("align", "median", "_aligned_median"),
        ("flip_tta", True, "_flip"),
        ("boundary", True, ""),
        ("per_image", True, ""),
    ):
        assert before[name] != value
        text = str(value).lower()
        main(["test", "--config", recipe, "--ckpt_path", LAST, f"--{name}", text])
        path = (folder / LAST).with_name(f"test_full{suffix}.json")
        if name == "per_image":
            assert path.with_suffix(".csv").is_file()
            continue
        said = json.loads(path.read_text())[name]
        if name == "boundary":
            assert said["n_images"] + said["n_without_edges"] == 3
            assert f"boundary F1 {said['f1']:.4f}" in capsys.readouterr().out
        else:
            assert said == value
        path.unlink()
    assert {field.name for field in dataclasses.fields(Scoring)} == {
        "align",
        "flip_tta",
        "boundary",
        "per_image",
    }
