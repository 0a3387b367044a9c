"""The likelihood of answers: a prompt that is computed once, for any family."""

import pytest
import torch
import transformers

from models.answers import log_likelihoods
from tests.language.models import CONFIGS, SIZE

FAMILIES = {
    **CONFIGS,
    # No keys and values to keep.
    "mamba": lambda: transformers.MambaConfig(
        vocab_size=320, hidden_size=32, num_hidden_layers=2, state_size=4
    ),
    # Both kinds of layers, whose keys could be repeated and whose states could not.
    "qwen3-next": lambda: transformers.Qwen3NextConfig(
        vocab_size=320,
        intermediate_size=48,
        mlp_only_layers=[0, 1],
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        head_dim=8,
        num_key_value_heads=2,
        layer_types=["linear_attention", "full_attention"],
        **SIZE,
    ),
    # Places from the mask, biases by distance, and layers that see a window only.
    "opt": lambda: transformers.OPTConfig(
        vocab_size=320, ffn_dim=48, word_embed_proj_dim=32, **SIZE
    ),
    "bloom": lambda: transformers.BloomConfig(
        vocab_size=320, hidden_size=32, n_layer=2, n_head=4
    ),
    "gemma2": lambda: transformers.Gemma2Config(
        vocab_size=320, intermediate_size=48, head_dim=8, sliding_window=8, **SIZE
    ),
}
OUTPUTS = {"alike": [[5, 6], [7, 8]], "ragged": [[5], [6, 7, 8, 9], [5, 6]]}
OUTPUTS["single"] = [[5], [9]]


@pytest.mark.parametrize("outputs", OUTPUTS.values(), ids=OUTPUTS)
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_log_likelihoods__are_those_of_whole_sequences(family, outputs):
    torch.manual_seed(0)
    network = transformers.AutoModelForCausalLM.from_config(FAMILIES[family]())
    network.eval().double()
    prompt = torch.randint(10, 300, (23,)).tolist()
    found = log_likelihoods(network, prompt, outputs)
    for own, tokens in zip(found, outputs, strict=True):
        logits = network(torch.tensor([prompt + tokens])).logits[0].log_softmax(-1)
        wanted = sum(logits[22 + i, token] for i, token in enumerate(tokens))
        # The softmax is float32's: an answer of four tokens is some 24 nats.
        torch.testing.assert_close(own, wanted.float(), rtol=1e-6, atol=1e-5)
