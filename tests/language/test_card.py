"""What a published language model says of itself."""

import json
from pathlib import Path

import pytest
import yaml

from app.publishing.hub import Publication, card, check
from models.adapters import Lava
from models.artefacts import form_named
from models.artefacts.base import Base
from models.artefacts.form import ExportOptions, save
from models.artefacts.language.record import LanguageRecord
from models.errors import ExportError
from models.networks.causal import TINY_LANGUAGE, CausalSpec
from tests.app.publishing.hub_server import TOKEN
from tests.app.publishing.test_hub import NAME, given
from tests.app.publishing.test_hub import hub as hub
from tests.app.publishing.test_hub import run as run
from tests.language.test_exports import opened

RESULT = {
    "protocol": "commonsense",
    "rules": "clean prompt, likelihood of each option",
    "n_items": 14,
    "metrics": {"accuracy": 0.5},
    "tasks": {"boolq": {"accuracy": 0.625, "n_items": 8}, "piqa": {"accuracy": 0.375}},
}


def record(weights: str, commit: str | None = None) -> LanguageRecord:
    return LanguageRecord(
        network=CausalSpec("LlamaForCausalLM", "bfloat16"),
        config={},
        tokenizer=weights,
        base=Base(weights, commit=commit),
        base_sha256="0",
        adapter=Lava(),
        text={"prompt": "clean", "cutoff": 256},
    )


@pytest.mark.parametrize("form", ["transformers", "adapter", "peft"])
def test_card__has_the_task_its_results_and_the_base(form):
    publication = Publication("me/mine", False, form, None)
    own = record("meta-llama/Llama-2-7b-hf", 40 * "a")
    text = card(publication, own, "llama2", [RESULT], 7)
    about = yaml.safe_load(text.split("---")[1])
    assert about["pipeline_tag"] == "text-generation"
    assert about["base_model"] == "meta-llama/Llama-2-7b-hf"
    metrics = about["model-index"][0]["results"][0]["metrics"]
    assert [(m["type"], m["name"], m["value"]) for m in metrics] == [
        ("accuracy", "boolq", 0.625),
        ("accuracy", "piqa", 0.375),
    ]
    assert "A LlamaForCausalLM, adapted to answer questions" in text
    assert "| prompt | clean |" in text
    assert "`commonsense`, 14 items, clean prompt, likelihood of each option:" in text
    assert "metric depth" not in text
    assert "PHOTOGRAPHS" not in text


def test_licence__is_the_tiny_ones_or_has_to_be_said(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    publication = Publication("me/mine", False, "transformers", None)
    assert check(publication, record(TINY_LANGUAGE)) == "apache-2.0"
    with pytest.raises(ExportError, match="say under which one"):
        check(publication, record("somebody/model"))


def test_push__of_a_merged_model_and_back(hub, run, tmp_path, models):
    one = opened(models / "llama", Lava(rank=2))
    form = form_named("adapter", one.forms)
    save(form, one, tmp_path / "model", ExportOptions())
    (tmp_path / "model/test_commonsense.json").write_text(json.dumps(RESULT))
    done = run(*given(tmp_path / "model"))
    assert done.returncode == 0, done.stderr
    files = hub.repos[NAME]
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(
        files
    )
    assert "pipeline_tag: text-generation" in files["README.md"].decode()
    back = run("--model", NAME, "--export", "again")
    assert back.returncode == 0, back.stderr
    assert Path("again/model.safetensors").read_bytes() == files["model.safetensors"]
