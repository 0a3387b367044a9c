"""What a trained language model says about itself, and how it is handed on."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from datamodules.sizes import InputSize
from models.artefacts import LANGUAGE_FORMS
from models.artefacts.base import Base, fingerprint
from models.artefacts.descriptions import KIND
from models.artefacts.facts import Facts, Result
from models.artefacts.families import class_name
from models.artefacts.opened import Opened, OpenedModel, Reopened
from models.artefacts.record import Record, shared_fields
from models.errors import ExportError
from models.networks.causal import (
    TINY_LANGUAGE,
    CausalSpec,
    load_causal,
    load_tokenizer,
    targets_of,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

USAGE = "python predict.py --model {repo} --export merged  # LAVA Depth"
PROBES = ((1, 1), (1, 4), (2, 32))
"""Shapes of the tokens that exports are compared on: few rows, as when generating, take
another path through an adapter than many."""


@dataclass(frozen=True, kw_only=True)
class LanguageRecord(Record[nn.Module]):
    """Everything that rebuilds a trained language model, but its trained tensors."""

    network: CausalSpec
    config: Mapping[str, Any]
    """Of `transformers`."""
    tokenizer: str
    """Where it is: as `model.weights`."""
    text: Mapping[str, Any] = field(default_factory=dict)
    """What it was trained on: prompt, cutoff, and what was cut off."""

    def build(self) -> nn.Module:
        import transformers

        config: Any = transformers.AutoConfig.for_model(**self.config)
        made: Any = transformers.AutoModelForCausalLM
        dtype = getattr(torch, self.network.dtype)
        network: nn.Module = made.from_config(config, dtype=dtype)
        network.adapter_targets = targets_of(network)  # type: ignore[assignment]
        return network

    def load_base(self) -> nn.Module:
        assert self.base.weights is not None
        network = load_causal(self.base.weights, self.network.dtype).network  # type: ignore[arg-type]
        self.check_base(fingerprint(network))
        return network

    def _base(self, weights: str) -> Base:
        return dataclasses.replace(self.base, weights=weights, commit=None)

    def new_names(self, network: nn.Module) -> tuple[str, ...]:
        return ()

    def own(self) -> dict[str, Any]:
        return {
            KIND: class_name(type(self)),
            "network": dataclasses.asdict(self.network),
            "config": dict(self.config),
            "tokenizer": self.tokenizer,
            "text": dict(self.text),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        return cls(
            network=CausalSpec(**content["network"]),
            config=content["config"],
            tokenizer=content["tokenizer"],
            text=content["text"],
            **shared_fields(content),
        )

    def licence(self) -> str | None:
        return "apache-2.0" if self.base.weights == TINY_LANGUAGE else None

    def facts(self) -> Facts:
        base = self.base.weights
        known = base is not None and base.count("/") == 1 and self.base.commit
        return Facts(
            task="text-generation",
            tags=("text-generation", "lava-depth"),
            words=f"A {self.network.architecture}, adapted to answer questions",
            base=base,
            base_id=base if known else None,
            forms=LANGUAGE_FORMS,
            shown=_shown,
            more={name: str(value) for name, value in self.text.items()},
            usage={"adapter": USAGE},
        )

    def opened(self, network: nn.Module, source: str) -> "OpenedLanguage":
        return OpenedLanguage(network, self, load_tokenizer(self.tokenizer), source)


def _shown(result: dict[str, Any]) -> Result | None:
    tasks = result["protocol"]
    return Result(
        f"`{tasks}`, {result['n_items']} items, {result['rules']}",
        {name: row["accuracy"] for name, row in result["tasks"].items()},
        (tasks, tasks, result["rules"]),
        "accuracy",
    )


@dataclass(frozen=True)
class OpenedLanguage(OpenedModel):
    """A causal language model with its tokenizer."""

    network: nn.Module
    record: LanguageRecord | None
    tokenizer: "PreTrainedTokenizerBase"
    source: str
    forms = LANGUAGE_FORMS

    @property
    def adapted(self) -> nn.Module:
        return self.network

    def export_size(
        self, choose: Callable[[InputSize | None, int], InputSize]
    ) -> InputSize:
        size = choose("native", 1)
        if size != "native":
            raise ExportError(f"--size is of pictures, and {self.source} reads text")
        return size

    def for_pictures(self) -> Opened:
        raise ExportError(
            f"{self.source} is a language model, which predicts no depth; hand it on "
            "with --export FOLDER, or score it with train.py test"
        )

    def probes(self, size: InputSize) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        return [
            torch.randint(len(self.tokenizer), shape, generator=generator)
            for shape in PROBES
        ]

    @torch.no_grad()
    def difference(self, reopened: Reopened, probe: Tensor) -> float:
        """Largest difference of logits, of the largest logit; 0 of equal tensors.

        These may give other logits, by where a row of weights lies in memory. What a
        shorter format than float32 rounds away is not counted.
        """
        if isinstance(reopened, nn.Module) and _same(self.network, reopened):
            return 0.0
        logits = self.network(probe).logits
        expected, found = logits.float(), reopened(probe).logits.float()
        shorter = torch.finfo(logits.dtype).eps / torch.finfo(torch.float32).eps
        worst = (found - expected).abs().max() / expected.abs().max()
        return float(worst / shorter)


def _same(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )
