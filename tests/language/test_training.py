"""train.py and predict.py on tiny language models, as a person types them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from app.prediction.command import main as predict
from app.training.command import main
from datamodules.commonsense import CommonsenseDataModule
from models.adapters import LoRA
from models.artefacts.checkpoint import load_checkpoint, read_checkpoint
from models.errors import OptionError
from models.language_module import LanguageModule
from models.scoring import LanguageScoring
from tests.app.training.test_train import write_config
from tests.conftest import REAL_DATA, needs_real_data
from tests.language.models import CONFIGS, row, save_model, write_recipe

REPO = Path(__file__).parents[2]
RUN = Path("runs/small/version_0")
BEST, LAST = (str(RUN / f"checkpoints/{name}.ckpt") for name in ("best", "last"))


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def result(name="test_commonsense") -> dict:
    return json.loads((RUN / f"checkpoints/{name}.json").read_text())


@pytest.mark.parametrize("family", CONFIGS)
def test_family__is_fitted_resumed_tested_and_handed_on(models, tasks, family, capsys):
    recipe = ["--config", str(write_recipe(Path("small.yaml"), models / family, tasks))]
    main(["fit", *recipe])
    summary = json.loads((RUN / "summary.json").read_text())
    for when in ("before", "after"):
        assert summary[when]["n_items"] == 4
        assert 0 <= summary[when]["accuracy"] <= 1
    assert summary["after"]["loss"] < summary["before"]["loss"]
    main(["fit", *recipe, "--ckpt_path", "last", "--trainer.max_epochs", "3"])
    assert torch.load(LAST, weights_only=True)["epoch"] == 2
    main(["test", *recipe, "--ckpt_path", BEST, "--new_tokens", "4"])
    printed = capsys.readouterr().out
    assert "clean prompt, 4 beams, up to 4 new tokens" in printed
    assert "the prompt masked, cutoff 256; of 20 rows 0 lost" in printed
    found = result()
    assert found["n_items"] == 14
    assert {t: r["majority"] for t, r in found["tasks"].items()} == {
        "ARC-Easy": 3 / 7,
        "openbookqa": 3 / 7,
    }
    predict(["--model", BEST, "--export", "merged"])
    assert Path("merged/tokenizer.json").is_file()
    record, tensors = read_checkpoint(Path(BEST))
    assert all(".adapter." in name for name in tensors)
    assert record.text["rows"] == 20
    # The base of another training.
    again = LanguageModule("merged").network.state_dict()
    network, _ = load_checkpoint(Path(BEST))
    assert len(again) < len(network.state_dict())


def test_resume__in_the_middle_of_an_epoch_is_exact(models, tasks, monkeypatch):
    recipe = write_recipe(Path("small.yaml"), models / "llama", tasks)
    command = ["fit", "--config", str(recipe), "--recovery.minutes", "1e-9"]
    command += ["--data.batch_size", "1", "--trainer.max_epochs", "1"]
    main([*command, "--trainer.default_root_dir", "whole"])
    step = LanguageModule.training_step

    def stopped(self, batch, batch_idx):
        if self.global_step == 9:
            raise RuntimeError("killed")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(LanguageModule, "training_step", stopped)
    with pytest.raises(RuntimeError, match="killed"):
        main(command)
    assert torch.load(LAST, weights_only=True)["global_step"] == 8
    monkeypatch.setattr(LanguageModule, "training_step", step)
    main([*command, "--ckpt_path", "last"])
    whole, part = (
        torch.load(root / LAST, weights_only=True) for root in (Path("whole"), Path())
    )
    assert (whole["global_step"], part["global_step"]) == (20, 20)
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(part["state_dict"][name], tensor), name


@pytest.mark.parametrize("scoring", ["generate", "likelihood"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_scores__are_those_of_any_batch_size(models, tasks, family, scoring):
    module = LanguageModule(str(models / family))
    module.scoring = LanguageScoring(scoring, new_tokens=6)
    off = ("logger", "enable_progress_bar", "enable_model_summary")
    trainer = Trainer(accelerator="cpu", devices=1, **dict.fromkeys(off, False))
    found = []
    for size in (1, 16):
        data = CommonsenseDataModule(
            str(tasks), tasks=["ARC-Easy", "openbookqa"], batch_size=size
        )
        trainer.test(module, data, verbose=False)
        found.append(module.tested("").content["tasks"])
    assert found[0] == found[1]
    assert sum(row["n_items"] for row in found[0].values()) == 14


def test_compatible__is_said_and_has_a_file_of_its_own(models, tasks, capsys):
    recipe = write_recipe(
        Path("small.yaml"), models / "llama", tasks, prompt="compatible", cutoff=100
    )
    options = ["--config", str(recipe), "--trainer.max_epochs", "1"]
    with pytest.warns(UserWarning, match="longer than") as said:
        main(["fit", *options])
    for part in ("20 of 20 train", "4 of 4 val"):
        wanted = f"{part} rows are longer than data.cutoff 100: their answers are cut"
        assert any(wanted in str(each.message) for each in said)
    more = ["--ckpt_path", BEST, "--scoring", "likelihood"]
    main(["test", *options, *more, "--data.tasks", '["ARC-Easy","boolq"]'])
    printed = capsys.readouterr().out
    assert "compatible prompt, the prompt in the loss, cutoff 100; of 20 rows 20" in (
        printed
    )
    assert "WARNING: without boolq: the average is of 1 of 2 tasks" in printed
    found = result("test_commonsense_compatible_likelihood")
    assert found["missing"] == ["boolq"]
    assert found["trained_on"]["cut"] == 20


def test_own_task__is_trained_on_and_scored(models, tmp_path):
    rows = [
        {"instruction": f"{i}?", "output": "yes", "options": ["yes", "no"]}
        for i in range(8)
    ]
    text = "\n".join(json.dumps(each) for each in rows)
    (tmp_path / "mine").mkdir()
    for name in ("train.jsonl", "mine/test.jsonl"):
        (tmp_path / name).write_text(text)
    recipe = write_recipe(
        Path("small.yaml"), models / "llama", tmp_path, train="train.jsonl", n_val=2
    )
    options = ["--config", str(recipe), "--data.tasks", '["mine"]']
    main(["fit", *options])
    main(["test", *options, "--ckpt_path", BEST, "--scoring", "likelihood"])
    own = result("test_commonsense_likelihood")["tasks"]["mine"]
    assert (own["n_items"], own["no_answer"], own["majority"]) == (8, 0, 1.0)


def test_checkpointing__has_the_same_gradients(models):
    found = []
    for wanted in (False, True):
        module = LanguageModule(str(models / "llama"), None, "auto", False)
        if wanted:
            module = LanguageModule(str(models / "llama"), gradient_checkpointing=True)
        ids = torch.arange(3, 40)[None]
        module(ids, torch.ones_like(ids)).square().mean().backward()
        found.append([p.grad for p in module.network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


REFUSED = {
    "no tokenizer": (["--model.weights", "{bare}"], "has no tokenizer that can be"),
    "not causal": (["--model.weights", "{bert}"], "not a causal language model"),
    "cut off": (["--model.weights", "{cut}"], "cannot be loaded as a language model"),
    "nowhere": (["--model.weights", "./nowhere"], "there is no such folder"),
    "long": (["--data.cutoff", "20"], "rows are longer than data.cutoff 20"),
    "task": (["--data.tasks", '["nowhere"]'], "has no nowhere/test.json"),
    "label": (["--data.train", "{wrong}"], "which none of its options is"),
    "pictures": (
        ["--data", "datamodules.SyntheticDataModule"],
        "the first takes text, the second has pictures",
    ),
    "bf16 whole": (
        ["--model.dtype", "bfloat16", "--model.adapter", "null"],
        "are lost in bfloat16",
    ),
    "align": (["--align", "median"], "--align median is not for LanguageModule"),
    "beams": (["--beams", "0"], "must be 1 or more"),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory, models):
    """Models and files that are no use, by the names that `REFUSED` has for them."""
    import transformers

    root = tmp_path_factory.mktemp("wrong")
    save_model(root / "bare")
    for path in (root / "bare").glob("tokenizer*"):
        path.unlink()
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=320
    )
    transformers.BertForMaskedLM(config).save_pretrained(root / "bert")
    save_model(root / "cut")
    weights = root / "cut/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-500])
    rows = [row(i) for i in range(9)]
    rows[4]["answer"] = "answer9"
    (root / "wrong.json").write_text(json.dumps(rows))
    names = ("bare", "bert", "cut", "wrong.json")
    return {name.removesuffix(".json"): root / name for name in names}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals__are_one_line(models, tasks, places, case, capsys):
    given, message = REFUSED[case]
    recipe = str(write_recipe(Path("small.yaml"), models / "llama", tasks))
    own = case in ("task", "align", "beams")
    command = "test" if own else "fit"
    with pytest.raises(SystemExit):
        main(
            [
                command,
                "--config",
                recipe,
                *(g.format(**places) if "{" in g else g for g in given),
            ]
        )
    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    assert message in error


def test_check__counts_rows_and_names_what_is_missing(models, tasks, capsys):
    recipe = str(write_recipe(Path("small.yaml"), models / "llama", tasks))
    main(["check", "--config", recipe])
    assert "good to train on" in capsys.readouterr().out
    main(["check", "--config", recipe, "--data.tasks", '["ARC-Easy","piqa"]'])
    printed = capsys.readouterr().out
    assert "train       20 rows, 20 with options, prompts up to" in printed
    assert "suspicious: there is no piqa to test on" in printed


@pytest.mark.slow
def test_two_processes__score_as_one(models, tasks):
    recipe = str(write_recipe(Path("small.yaml"), models / "llama", tasks))
    run("fit", "--config", recipe)
    found = []
    for devices in ("1", "2"):
        more = ["--trainer.devices", devices]
        more += ["--trainer.strategy", "ddp"] if devices == "2" else []
        run("test", "--config", recipe, "--ckpt_path", BEST, *more, "--new_tokens", "4")
        found.append(result()["tasks"])
    assert found[0] == found[1]


@pytest.mark.slow
def test_demo__learns_to_answer_about_objects_held_out():
    run("fit", "--config", str(REPO / "configs/demo_language.yaml"))
    (file,) = Path("runs/demo_language").glob("*/summary.json")
    summary = json.loads(file.read_text())
    before, after = summary["before"], summary["after"]
    assert before["n_items"] == after["n_items"] == 240
    assert abs(before["accuracy"] - 0.25) < 4 * before["standard_error"]
    assert after["accuracy"] > before["accuracy"] + 8 * after["standard_error"]


def run(*args: str) -> None:
    subprocess.run(
        [sys.executable, str(REPO / "train.py"), *args],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
    )


@pytest.mark.slow
@needs_real_data
@pytest.mark.parametrize("scoring", ["likelihood", "generate"])
def test_real_files__are_scored_to_the_end_by_the_tiny_base(tmp_path, scoring):
    """It has never read such words: not above the most frequent answer's share."""
    for path in (REAL_DATA / "commonsense").glob("*/test.json"):
        (tmp_path / path.parent.name).mkdir()
        rows = json.loads(path.read_text())[:: 40 if scoring == "likelihood" else 200]
        (tmp_path / path.parent.name / "test.json").write_text(json.dumps(rows))
    recipe = ["--config", str(REPO / "configs/commonsense.yaml")]
    model = ["--model.weights", "tiny-language", "--model.adapter", "null"]
    root = ["--data.root", str(tmp_path), "--model.dtype", "float32"]
    run("test", *recipe, *model, *root, "--scoring", scoring)
    suffix = "_likelihood" if scoring == "likelihood" else ""
    found = json.loads(Path(f"test_commonsense{suffix}.json").read_text())
    assert found["missing"] == ["hellaswag"]
    assert len(found["tasks"]) == 7
    for each in found["tasks"].values():
        assert each["accuracy"] <= each["majority"] + 4 * each["standard_error"]


def test_options__of_language_are_refused_of_depth(tmp_path, tiny_weights, capsys):
    recipe = str(write_config(tmp_path, tiny_weights))
    with pytest.raises(SystemExit):
        main(["test", "--config", recipe, "--scoring", "likelihood"])
    error = capsys.readouterr().err
    assert "--scoring likelihood is not for DepthAnythingModule" in error
    assert "it takes align, flip_tta, boundary" in error


@pytest.mark.parametrize("how", ["likelihood", "generate"])
def test_test__of_what_gives_no_numbers_is_refused(models, tasks, how):
    """NaN would be an answer: the first option, or none."""
    model = LanguageModule(str(models / "llama"), LoRA(rank=2))
    with torch.no_grad():
        for name, parameter in model.network.named_parameters():
            if name.endswith("adapter.up"):
                parameter.fill_(float("nan"))
    model.scoring = LanguageScoring(how, beams=1, new_tokens=2)
    silent = {"logger": False, "enable_progress_bar": False, "devices": 1}
    tester = Trainer(accelerator="cpu", enable_model_summary=False, **silent)
    data = CommonsenseDataModule(str(tasks), tasks=["openbookqa"], n_val=4)
    with pytest.raises(OptionError, match="logits are not numbers on 7 of 7 questions"):
        tester.test(model, datamodule=data)
