"""A causal language model, adapted to answer questions."""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from datamodules.files.instructions import first_label
from datamodules.texts import Asks, TextBatch
from models.adapters import AdapterConfig, adapt
from models.answers import BROKEN, COUNTED, Tally, answer_loss, generated, likeliest
from models.artefacts.base import Base, fingerprint
from models.artefacts.language.record import LanguageRecord
from models.artefacts.record import Record
from models.errors import OptionError
from models.networks.causal import Dtype, load_causal
from models.optimisation import PlainOptimisation
from models.scoring import LanguageScoring
from models.soundness import INSTEAD
from models.task_module import Row, TaskModule, Told


class LanguageModule(TaskModule):
    """Any causal language model of `transformers` with an adapter.

    Args:
        weights: A folder with config.json, safetensors and a tokenizer, a Hub id
            (owner/name[@revision]), or tiny-language.
        adapter: Method and options; null trains the whole model. Its targets are by
            default the projections q, k, v, up and down, under the family's names.
        dtype: Of the base's weights; an adapter's are float32. auto: as they are
            stored.
        random_weights: Begin at random weights; architecture and tokenizer are those
            of `weights`.
        optimisation: Rates and schedule.
        gradient_checkpointing: Compute layers again in backward instead of keeping
            them: less memory, more time, the same gradients.
    """

    takes = "text"
    monitor = ("val/loss", "min")
    rises = frozenset({"accuracy"})
    scoring_kind = LanguageScoring
    scoring: LanguageScoring
    record: LanguageRecord
    network: Any
    """Of `transformers`, whose classes are loosely typed."""

    def __init__(
        self,
        weights: str,
        adapter: AdapterConfig | None = None,
        dtype: Dtype = "auto",
        random_weights: bool = False,
        optimisation: PlainOptimisation = PlainOptimisation(),  # noqa: B008 - frozen
        gradient_checkpointing: bool = False,
    ) -> None:
        found = load_causal(weights, dtype, random=random_weights)
        network = found.network
        record = LanguageRecord(
            network=found.spec,
            config=plain_config(network),
            tokenizer=weights,
            base=Base(None if random_weights else weights, commit=found.commit),
            base_sha256=fingerprint(network),
            adapter=adapter,
        )
        if adapter is not None:
            adapt(network, adapter)
        if gradient_checkpointing:
            whole: Any = network
            names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
            enable = next(getattr(whole, n) for n in names if hasattr(whole, n))
            enable({"use_reentrant": False})
        super().__init__(network, record, optimisation)
        self.tokenizer: Any = found.tokenizer
        self._tally = Tally()
        self._loss = torch.zeros(2)
        self._rows: dict[str, Row] = {}
        self._tested: dict[str, Row] = {}

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (B, T, tokens) of (B, T) tokens."""
        out = self.network(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        )
        logits: Tensor = out.logits
        return logits

    def on_fit_start(self) -> None:
        dtype = self.record.network.dtype
        if self.record.adapter is None and dtype != "float32":
            raise OptionError(
                f"the small steps of a whole model (adapter: null) are lost in "
                f"{dtype}; set model.dtype to float32, or give an adapter"
            )

    def on_train_start(self) -> None:
        super().on_train_start()
        self._rows.clear()  # of the beginning

    def training_step(self, batch: TextBatch, batch_idx: int) -> Tensor:
        size = len(batch["labels"])
        logits = self(batch["input_ids"], batch["attention_mask"])
        loss = answer_loss(logits, batch["labels"])[0].mean()
        self.log("train/loss", loss.detach(), batch_size=size)
        if (penalty := self.penalty(size)) is not None:
            loss = loss + penalty
        self.log("loss", loss.detach(), prog_bar=True, batch_size=size)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._tally = Tally()
        self._loss = torch.zeros(2, device=self.device)

    def validation_step(self, batch: TextBatch, batch_idx: int) -> None:
        logits = self(batch["input_ids"], batch["attention_mask"])
        losses = answer_loss(logits, batch["labels"])[0]
        self._loss += torch.stack((losses.sum(), losses.new_tensor(len(losses))))
        asked = batch.get("questions", [])
        for question, found in zip(asked, likeliest(self.network, asked), strict=True):
            self._tally.add(question, "", found)

    def on_validation_epoch_end(self) -> None:
        total, tokens = self._summed(self._loss).tolist()
        if not math.isfinite(total):
            raise OptionError(
                f"the validation loss is {total}: training diverged, or a precision "
                "overflows; lower the learning rates"
            )
        self._rows["val"] = {"loss": total / tokens}
        for _, row in self._tally.rows(self._summed(self._tally.sums)):
            self._rows["val"] |= {n: row[n] for n in row if n != "no_answer"}
        for name in ("loss", "accuracy"):
            if (value := self._rows["val"].get(name)) is not None:
                self.log(f"val/{name}", value, sync_dist=True)
        if not self.trainer.sanity_checking:
            self.scores = {"prompt": self._data.prompt, "metrics": self._rows["val"]}

    def on_test_epoch_start(self) -> None:
        asked = self._data.questions
        self._tally = Tally(tuple(asked))
        self._labels = {task: self._data.labels(task) for task in asked}
        limit: int = getattr(self.network.config, "max_position_embeddings", 0) or 0
        generates = self.scoring.scoring == "generate"
        for task, own in asked.items() if limit else ():
            longest = max(len(q.prompt) for q in own)
            said = max(len(tokens) for q in own for tokens in q.outputs)
            new = self.scoring.new_tokens if generates else said
            if longest + new > limit:
                raise OptionError(
                    f"{task} has a prompt of {longest} tokens, which with {new} of the "
                    f"answer is more than the {limit} that the model can read; leave "
                    "the task out of data.tasks"
                )

    def test_step(self, batch: TextBatch, batch_idx: int) -> None:
        asked, scoring = batch["questions"], self.scoring
        likelihood = scoring.scoring == "likelihood"
        if likelihood:
            said = likeliest(self.network, asked)
        else:
            said = generated(
                self.network, self.tokenizer, asked, scoring.beams, scoring.new_tokens
            )
        for question, text in zip(asked, said, strict=True):
            answer = text
            if text is not None and not likelihood:
                answer = first_label(text, self._labels[question.task])
            own = question.task
            self._tally.add(question, own, answer, broken=text is None)

    def on_test_epoch_end(self) -> None:
        sums = self._summed(self._tally.sums)
        if broken := int(sums[:, BROKEN].sum()):
            raise OptionError(
                f"the model's logits are not numbers on {broken} of "
                f"{int(sums[:, COUNTED].sum())} questions: training diverged, or a "
                f"precision overflows; {INSTEAD}"
            )
        rows = dict(self._tally.rows(sums))
        for task, row in rows.items():
            answers = Counter(q.answer for q in self._data.questions[task])
            row["majority"] = max(answers.values()) / answers.total()
        self._tested = rows
        mean = sum(row["accuracy"] for row in rows.values()) / len(rows)
        self._rows["test"] = {"accuracy": mean}
        self.log("test/accuracy", mean, sync_dist=True)

    def row(self, stage: str, source: str = "") -> Row:
        return self._rows.get(stage, {})

    def description(self) -> dict[str, Any]:
        self.record = replace(self.record, text=self._data.about())
        return super().description()

    def note_record(self, found: Record[Any]) -> None:
        super().note_record(found)
        assert isinstance(found, LanguageRecord)
        self.record = replace(self.record, text=found.text)

    def told(self, rows: Mapping[str, Row], source: str) -> Told:
        data = self._data
        return Told(
            heading=f"{data.name}, held-out rows, {data.prompt} prompt; accuracy: the "
            "likeliest of each row's options",
            rows=rows,
            content={"protocol": data.name, **data.about()},
            notes=[said_of(data.about()), *data.notes],
        )

    def tested(self, source: str) -> Told:
        data, scoring, text = self._data, self.scoring, self.record.text
        how = (
            f"{scoring.beams} beams, up to {scoring.new_tokens} new tokens"
            if scoring.scoring == "generate"
            else "likelihood of each option"
        )
        rules = f"{data.prompt} prompt, {how}"
        count = sum(row["n_items"] for row in self._tested.values())
        mean = self._rows["test"]["accuracy"]
        notes = [said_of(text)]
        if data.missing:
            names, of = ", ".join(data.missing), len(data.missing) + len(self._tested)
            notes.append(
                f"WARNING: without {names}: the average is of {len(self._tested)} of "
                f"{of} tasks, which is not the number of the literature"
            )
        suffix = "" if data.prompt == "clean" else f"_{data.prompt}"
        if scoring.scoring == "likelihood":
            suffix += "_likelihood"
        return Told(
            heading=f"{data.name}: {rules}",
            rows={**self._tested, "average": {"accuracy": mean, "n_items": count}},
            content={
                "protocol": data.name,
                "rules": rules,
                "n_items": count,
                "metrics": {"accuracy": mean},
                "tasks": self._tested,
                "missing": list(data.missing),
                "prompt": data.prompt,
                **dataclasses.asdict(scoring),
                "trained_on": dict(text),
            },
            notes=notes,
            name=data.name + suffix,
            counted=count,
        )

    def next_command(self, checkpoint: str) -> str:
        return f"python predict.py --model {checkpoint} --export merged"

    @property
    def _data(self) -> Asks:
        return cast(Asks, self.trainer.datamodule)  # type: ignore[attr-defined]

    def _summed(self, sums: Tensor) -> Tensor:
        """Of all processes."""
        found: Tensor = self.trainer.strategy.reduce(
            sums.to(self.device), reduce_op="sum"
        )
        return found


def said_of(text: Mapping[str, Any]) -> str:
    """What a model was trained on, in a line below its results."""
    if not text:
        return "not trained here"
    loss = "the prompt in the loss" if text["prompt_in_loss"] else "the prompt masked"
    cut = ""
    if "rows" in text:
        cut = (
            f"; of {text['rows']} rows {text['cut']} lost the end of their answer to "
            f"the cutoff, {text['left_out']} were left out"
        )
    prompt = f"trained with the {text['prompt']} prompt, {loss}"
    return f"{prompt}, cutoff {text['cutoff']}{cut}"


def plain_config(network: Any) -> dict[str, Any]:
    """A model's configuration in plain types, without where it was found."""
    content: dict[str, Any] = json.loads(network.config.to_json_string(use_diff=True))
    for name in ("_name_or_path", "transformers_version", "dtype"):
        content.pop(name, None)
    return content
