"""A language model and its adapter: adapted, merged, handed on, opened again."""

import peft
import pytest
import torch
import transformers

from models.adapters import (
    AdapterError,
    DoRA,
    FastLoRA,
    Lava,
    LoRA,
    SVDiff,
    Tucker,
    adapt,
    adapters,
    merge,
)
from models.artefacts import form_named
from models.artefacts.base import Base, fingerprint
from models.artefacts.depth_record import DepthRecord
from models.artefacts.form import ExportOptions, save
from models.artefacts.language.record import LanguageRecord, OpenedLanguage
from models.artefacts.opening import open_adapter, open_model
from models.errors import CheckpointError
from models.language_module import plain_config
from models.networks import NetworkSpec
from models.networks.causal import load_causal
from tests.language.models import CONFIGS
from tests.models.artefacts.damage import DAMAGE, change_description

METHODS = {
    "Lava": Lava(rank=2),
    "LoRA": LoRA(rank=2),
    "DoRA": DoRA(rank=2),
    "Tucker": Tucker(rank=2),
    "SVDiff": SVDiff(),
    "FastLoRA": FastLoRA(rank=1),
}
ROWS = (1, 4, 64)
"""Few, as in decoding, and many take different paths through a layer."""


def tokens(rows: int) -> torch.Tensor:
    return torch.randint(3, 300, (1, rows), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(network, rows: int) -> torch.Tensor:
    return network(tokens(rows)).logits


def stirred(network) -> None:
    """Adapters away from their start, where no increment is zero."""
    generator = torch.Generator().manual_seed(3)
    for _, adapter in adapters(network):
        for parameter in adapter.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data += 0.05 * noise


def opened(folder, config) -> OpenedLanguage:
    """As a run leaves it."""
    found = load_causal(str(folder), "auto")
    record = LanguageRecord(
        network=found.spec,
        config=plain_config(found.network),
        tokenizer=str(folder),
        base=Base(str(folder)),
        base_sha256=fingerprint(found.network),
        adapter=config,
    )
    adapt(found.network, config)
    stirred(found.network)
    return OpenedLanguage(found.network.eval(), record, found.tokenizer, "run")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", CONFIGS)
def test_adapted__starts_as_the_base_and_merges_to_itself(models, family, method):
    network = load_causal(str(models / family), "auto").network.eval()
    base = [logits(network, rows) for rows in ROWS]
    layers = adapt(network, METHODS[method])
    assert len(layers) == {"gpt2": 6}.get(family, 10)
    for name in layers:
        layer = network.get_submodule(name)
        assert torch.equal(layer.weight, layer.base_weight), name
    for rows, expected in zip(ROWS, base, strict=True):
        found = logits(network, rows)
        if method == "SVDiff":
            # Its dense weight has the same bits elsewhere in memory, on which torch's
            # product of a single row depends.
            assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()
        else:
            assert torch.equal(found, expected), rows
    stirred(network)
    adapted = [logits(network, rows) for rows in ROWS]
    merge(network)
    for rows, expected, before in zip(ROWS, adapted, base, strict=True):
        scale = expected.abs().max()
        assert (expected - before).abs().max() > 1e-3 * scale
        assert (logits(network, rows) - expected).abs().max() <= 1e-6 * scale, rows


@pytest.mark.parametrize("family", CONFIGS)
def test_transformers__folder_is_the_merged_model_to_the_bit(models, tmp_path, family):
    one = opened(models / family, METHODS["DoRA"])
    assert save(form_named("transformers", one.forms), one, tmp_path / "m", size()) == 0
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    ours, theirs = one.network.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    tied = again.get_input_embeddings().weight is again.get_output_embeddings().weight
    assert tied == again.config.tie_word_embeddings
    options = {"max_new_tokens": 8, "do_sample": False, "num_beams": 2}
    prompt = tokens(4)
    mask = torch.ones_like(prompt)
    said = [
        each.generate(prompt, attention_mask=mask, **options)
        for each in (one.network, again)
    ]
    assert torch.equal(*said)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    assert tokenizer("Answer1").input_ids == one.tokenizer("Answer1").input_ids
    assert open_model(str(tmp_path / "m")).forms == one.forms


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("method", ["Lava", "LoRA", "DoRA", "Tucker"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_peft__real_peft_computes_the_same_and_it_is_loaded_back(
    models, tmp_path, family, method
):
    one = opened(models / family, METHODS[method])
    expected = [logits(one.network, rows) for rows in ROWS]
    save(form_named("peft", one.forms), one, tmp_path / "p", size())
    theirs = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "p").eval()
    ours = open_model(str(tmp_path / "p")).network.eval()
    tolerance = 1e-5 if method == "Tucker" else 1e-6
    for rows, wanted in zip(ROWS, expected, strict=True):
        for network in (theirs, ours):
            worst = (logits(network, rows) - wanted).abs().max()
            assert worst <= tolerance * wanted.abs().max(), (rows, type(network))


@pytest.mark.parametrize("form", ["peft", "adapter"])
@pytest.mark.parametrize(("change", "said"), DAMAGE.values(), ids=DAMAGE.keys())
def test_open__a_description_changed_by_other_hands_is_one_error(
    models, tmp_path, form, change, said
):
    one = opened(models / "llama", METHODS["LoRA"])
    save(form_named(form, one.forms), one, tmp_path / "a", size())
    change_description(tmp_path / "a", change)
    with pytest.raises(CheckpointError, match=said):
        open_model(str(tmp_path / "a"))


def test_peft__refuses_the_record_of_a_depth_network(models, tmp_path):
    one = opened(models / "llama", METHODS["LoRA"])
    save(form_named("peft", one.forms), one, tmp_path / "a", size())
    depth = DepthRecord(
        network=NetworkSpec("tiny", "v2", "metric", 10.0),
        image_size=(28, 42),
        base=Base("tiny-rooms"),
        base_sha256="0",
        adapter=None,
    )
    change_description(tmp_path / "a", lambda _: depth.to_dict())
    with pytest.raises(CheckpointError, match="beside it of a language model"):
        open_model(str(tmp_path / "a"))


def test_peft__has_no_form_for_svdiff(models, tmp_path):
    one = opened(models / "llama", METHODS["SVDiff"])
    with pytest.raises(AdapterError, match="not low-rank as PEFT's"):
        save(form_named("peft", one.forms), one, tmp_path / "p", size())
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("method", METHODS)
def test_adapter__folder_is_opened_as_it_was(models, tmp_path, method):
    one = opened(models / "qwen2", METHODS[method])
    assert save(form_named("adapter", one.forms), one, tmp_path / "a", size()) == 0
    again = open_model(str(tmp_path / "a"))
    assert torch.equal(logits(again.network.eval(), 4), logits(one.network, 4))
    with pytest.raises(CheckpointError, match="not of a depth network"):
        open_adapter(tmp_path / "a")


def test_base__that_changed_is_refused(models, tmp_path):
    one = opened(models / "llama", METHODS["LoRA"])
    save(form_named("adapter", one.forms), one, tmp_path / "a", size())
    text = (tmp_path / "a/adapter.json").read_text()
    (tmp_path / "a/adapter.json").write_text(
        text.replace(str(models / "llama"), str(models / "gemma"))
    )
    with pytest.raises(CheckpointError, match="was trained on a base with SHA-256"):
        open_model(str(tmp_path / "a"))


def size() -> ExportOptions:
    return ExportOptions()


def test_bfloat16__base_has_float32_adapters_and_comes_back(models, tmp_path):
    found = load_causal(str(models / "llama"), "bfloat16")
    adapt(found.network, METHODS["Lava"])
    kinds = {p.dtype for _, a in adapters(found.network) for p in a.parameters()}
    assert (found.network.dtype, kinds) == (torch.bfloat16, {torch.float32})
    stirred(found.network)
    one = OpenedLanguage(found.network.eval(), None, found.tokenizer, "run")
    assert save(form_named("transformers", one.forms), one, tmp_path / "m", size()) == 0


def test_training_mode__is_that_of_a_network_to_be_trained(models):
    network = load_causal(str(models / "gpt2"), "auto").network
    assert all(module.training for module in network.modules())


@pytest.mark.filterwarnings("ignore:.*are tied:UserWarning")
def test_tied__embeddings_stay_tied_when_they_are_adapted(models, tmp_path):
    one = opened(models / "qwen2", Lava(rank=2, targets=["embed_tokens"]))
    expected = [logits(one.network, rows) for rows in ROWS]
    save(form_named("transformers", one.forms), one, tmp_path / "m", size())
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()
    assert again.get_input_embeddings().weight is again.lm_head.weight
    for rows, wanted in zip(ROWS, expected, strict=True):
        worst = (logits(again, rows) - wanted).abs().max()
        assert worst <= 1e-6 * wanted.abs().max(), rows


def test_experts__of_mixtral_are_refused_by_name():
    config = transformers.MixtralConfig(
        **{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        **{"num_key_value_heads": 2, "num_local_experts": 3, "vocab_size": 64},
        intermediate_size=24,
    )
    network = transformers.AutoModelForCausalLM.from_config(config)
    wanted = Lava(rank=1, targets=["q_proj"], parameters=[r"experts\.down_proj"])
    with pytest.raises(AdapterError, match="stacks the weights of 3 experts"):
        adapt(network, wanted)
