"""Causal language models of `transformers`: loaded strictly, ready to be trained."""

import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError

from datamodules.extras import check_installed
from models.networks.presets import NetworkError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Dtype = Literal["auto", "float32", "bfloat16"]
TINY_LANGUAGE = "tiny-language"
PACKAGED = Path(__file__).parents[1] / "weights" / "tiny_language"
PROJECTIONS = (
    *(r"\.[qkv]_proj$", r"\.qkv_proj$", r"\.up_proj$", r"\.gate_up_proj$"),
    *(r"\.down_proj$", r"\.fc[12]$", r"\.query_key_value$", r"\.dense_h_to_4h$"),
    *(r"\.dense_4h_to_h$", r"\.c_attn$", r"\.mlp\.c_(fc|proj)$"),
)
"""q, k, v, up and down, as DoRA's authors adapt them, by the families' own names."""


@dataclass(frozen=True)
class CausalSpec:
    """What kind of language model, beside what its configuration says."""

    architecture: str
    """Class of `transformers`."""
    dtype: str
    """Of the base's weights."""

    def __str__(self) -> str:
        return f"{self.architecture} in {self.dtype}"


@dataclass(frozen=True)
class Causal:
    """A loaded model and what belongs to it."""

    network: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    commit: str | None
    """Of the Hub's repository, where it was had from there."""

    @property
    def spec(self) -> CausalSpec:
        dtype = str(self.network.dtype).removeprefix("torch.")
        return CausalSpec(type(self.network).__name__, dtype)


def load_causal(weights: str, dtype: Dtype, *, random: bool = False) -> Causal:
    """A causal language model with its tokenizer, in training mode.

    Args:
        weights: A folder, a Hub id (owner/name[@revision]) or `tiny-language`.
        dtype: Of the weights; auto takes the file's own.
        random: Leave out the weights, and begin its architecture anew.

    Raises:
        NetworkError: If it cannot be had, is not causal, or lacks a tensor.
    """
    transformers = _library()
    place, revision = where(weights)
    try:
        config = transformers.AutoConfig.from_pretrained(place, revision=revision)
    except (OSError, ValueError, KeyError) as error:
        raise _not_had(weights, error) from None
    _check_causal(weights, config)
    tokenizer = load_tokenizer(weights)
    kind = transformers.AutoModelForCausalLM
    if random:
        wanted = torch.float32 if dtype == "auto" else getattr(torch, dtype)
        network = kind.from_config(config, dtype=wanted)
    else:
        try:
            network, found = kind.from_pretrained(
                place,
                revision=revision,
                dtype=dtype,
                use_safetensors=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise _not_had(weights, error) from None
        if missing := sorted(found["missing_keys"]):
            raise NetworkError(
                f"{weights} lacks {len(missing)} tensors of {type(network).__name__}: "
                f"{', '.join(missing[:3])}; give a complete model"
            )
    if len(tokenizer) > network.get_input_embeddings().num_embeddings:
        raise NetworkError(
            f"the tokenizer of {weights} has {len(tokenizer)} tokens, more than the "
            "model's embeddings; give a model with its own tokenizer"
        )
    network.adapter_targets = targets_of(network)
    commit = getattr(config, "_commit_hash", None)
    # Loaded it is in eval mode, which Lightning would keep.
    return Causal(network.train(), tokenizer, commit)


def load_tokenizer(weights: str) -> "PreTrainedTokenizerBase":
    """The tokenizer beside a model's weights.

    Raises:
        NetworkError: If there is none.
    """
    transformers = _library()
    place, revision = where(weights)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, revision=revision)
    except Exception as error:
        # Without its files, whatever the class of a family stumbles over first.
        reason = str(error).strip().split("\n")[0]
        raise NetworkError(
            f"{weights} has no tokenizer that can be read ({reason}); put its "
            "tokenizer.json beside the weights"
        ) from None
    if tokenizer.eos_token_id is None:
        raise NetworkError(
            f"the tokenizer of {weights} has no token for the end of a text; set its "
            "eos_token"
        )
    return tokenizer  # type: ignore[no-any-return]


def targets_of(network: torch.nn.Module) -> tuple[str, ...]:
    """Patterns of the projections that a model has."""
    names = [name for name, _ in network.named_modules()]
    return tuple(p for p in PROJECTIONS if any(re.search(p, name) for name in names))


def where(weights: str) -> tuple[str, str]:
    """What `transformers` calls it, and the revision.

    Raises:
        NetworkError: If it can be neither a folder nor a Hub id.
    """
    if weights == TINY_LANGUAGE:
        return str(PACKAGED), "main"
    path = Path(weights).expanduser()
    if path.is_dir():
        return str(path), "main"
    repo, _, revision = weights.partition("@")
    if path.exists() or repo.count("/") != 1 or repo[:1] in ("", *"./~"):
        raise NetworkError(
            f"weights {weights!r}: there is no such folder; give one with config.json, "
            f"safetensors and a tokenizer, a Hub id (owner/name), or {TINY_LANGUAGE}"
        )
    return repo, revision or "main"


def _library() -> Any:
    check_installed("a language model", "language", "transformers")
    return import_module("transformers")


def _check_causal(weights: str, config: Any) -> None:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL,
    )

    known = set(CAUSAL.values())
    found = config.architectures or [CAUSAL.get(config.model_type, config.model_type)]
    if config.is_encoder_decoder or not known & set(found):
        raise NetworkError(
            f"{weights} is a {', '.join(found)}, not a causal language model; give one "
            "that generates text, such as meta-llama/Llama-2-7b-hf"
        )


def _not_had(weights: str, error: Exception) -> NetworkError:
    reason = str(error).strip().split("\n")[0]
    return NetworkError(
        f"{weights} cannot be loaded as a language model ({reason}); give a folder "
        "with config.json and safetensors, or a Hub id that you may read"
    )
