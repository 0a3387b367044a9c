"""Instructions as tokens: what is trained on, and what is asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, Protocol, TypedDict

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from datamodules.errors import DataError
from datamodules.files.instructions import Instruction
from datamodules.prompts import PromptName, prompt_of

IGNORED = -100
"""The label of what is not in the loss."""
OnLong = Literal["error", "skip", "cut"]


@dataclass(frozen=True)
class Question:
    """What is scored."""

    task: str
    prompt: list[int]
    """Tokens."""
    options: tuple[str, ...]
    outputs: list[list[int]]
    """Tokens of what would be said for each option."""
    answer: str


class TextBatch(TypedDict):
    """The plank between `datamodules` and `models`, for language."""

    input_ids: Tensor
    """(B, T) long, padded."""
    attention_mask: Tensor
    """(B, T) 1 where there is text."""
    labels: Tensor
    """(B, T) the tokens that are in the loss; elsewhere -100."""
    questions: NotRequired[list[Question]]
    """In validation and test, of those rows that have options."""


class Asks(Protocol):
    """What a module has to know of the data that it is scored on."""

    name: str
    """Of the tasks, in results."""
    notes: Sequence[str]
    """What is to be said below results."""
    prompt: PromptName
    questions: dict[str, list[Question]]
    """What is tested, by task."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Tasks that there are no rows of to test on."""

    def labels(self, task: str) -> tuple[str, ...]:
        """All that a task's answers may be, for finding one in a text."""

    def about(self) -> dict[str, Any]:
        """What a record says of the text that was trained on."""


@dataclass(frozen=True)
class Tokens:
    """A row to train on."""

    ids: Tensor
    labels: Tensor
    question: Question | None = None


@dataclass(frozen=True)
class Encoder:
    """Turns rows into tokens, under one prompt and cutoff."""

    tokenizer: Any
    """Of `transformers`."""
    prompt: PromptName
    cutoff: int
    """Tokens of a row in training, at most."""

    def rows(self, rows: Sequence[Instruction]) -> list[tuple[list[int], int]]:
        """Tokens of whole rows, uncut, and how many of them are not in the loss."""
        prompts = [prompt_of(row, self.prompt, training=True) for row in rows]
        end = [self.tokenizer.eos_token_id]
        if self.prompt == "compatible":
            # Published: prompt and answer in one, all of it in the loss.
            whole = [p + row.output for p, row in zip(prompts, rows, strict=True)]
            return [(self._plain(ids) + end, 0) for ids in self._ids(whole)]
        before = [self._plain(ids) for ids in self._ids(prompts)]
        after = self._ids([row.output for row in rows], special=False)
        pairs = zip(before, after, strict=True)
        return [(first + last + end, len(first)) for first, last in pairs]

    def questions(self, task: str, rows: Sequence[Instruction]) -> list[Question]:
        """Those rows that have options, as they are scored."""
        asked = [row for row in rows if row.answer is not None]
        prompts = [prompt_of(row, self.prompt, training=False) for row in asked]
        encoded = self._ids(prompts)
        outputs = self._ids([o for row in asked for o in row.outputs], special=False)
        each = iter(outputs)
        return [
            Question(
                task,
                self._plain(ids),
                row.options,
                [next(each) for _ in row.outputs],
                row.answer or "",
            )
            for row, ids in zip(asked, encoded, strict=True)
        ]

    def _ids(self, texts: list[str], *, special: bool = True) -> list[list[int]]:
        if not texts:
            return []
        found: list[list[int]] = self.tokenizer(
            texts,
            add_special_tokens=special,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        return found

    def _plain(self, ids: list[int]) -> list[int]:
        """Without the end that some tokenizers add."""
        return ids[:-1] if ids and ids[-1] == self.tokenizer.eos_token_id else ids


@dataclass(frozen=True)
class Cut:
    """What a cutoff did to the rows of a training."""

    rows: int
    cut: int = 0
    """Whose answers lost their end."""
    left_out: int = 0
    """Of whose answers nothing would have been left, or that were to be left out."""


def fitted(
    encoded: list[tuple[list[int], int]],
    encoder: Encoder,
    on_long: OnLong,
    source: str,
) -> tuple[list[Tokens | None], Cut]:
    """Rows within the cutoff; None for those that are left out.

    Raises:
        DataError: If rows are longer and that is to be an error, or none is left.
    """
    cutoff, whole = encoder.cutoff, encoder.prompt == "compatible"
    # Published: an end of text only where there is room for it.
    longer = [i for i, (ids, _) in enumerate(encoded) if len(ids) - int(whole) > cutoff]
    if longer and on_long == "error":
        raise DataError(
            f"{source}: row {longer[0] + 1} has {len(encoded[longer[0]][0])} tokens, "
            f"and {len(longer)} rows are longer than data.cutoff {cutoff}; give a "
            "larger one, or leave them out with --data.on_long skip"
        )
    gone = {i for i in longer if on_long == "skip" or encoded[i][1] >= cutoff}
    found: list[Tokens | None] = []
    for i, (ids, start) in enumerate(encoded):
        if i in gone:
            found.append(None)
            continue
        tokens = torch.tensor(ids[:cutoff])
        labels = tokens.clone()
        labels[:start] = IGNORED
        found.append(Tokens(tokens, labels))
    if not len(encoded) - len(gone):
        raise DataError(
            f"{source}: none of the {len(encoded)} rows has a token of its answer "
            f"within data.cutoff {cutoff}; give a larger one"
        )
    return found, Cut(len(encoded), len(longer) - len(gone), len(gone))


@dataclass(frozen=True)
class Collate:
    """Makes batches; a function of the tokenizer alone, for processes that load."""

    prompt: PromptName
    pad: int

    def __call__(self, items: list[Tokens]) -> TextBatch:
        # Published: on the left and with id 0, positions counted from there.
        side, pad = ("left", 0) if self.prompt == "compatible" else ("right", self.pad)
        ids = pad_sequence([i.ids for i in items], True, pad, side)
        labels = pad_sequence([i.labels for i in items], True, IGNORED, side)
        ones = [torch.ones_like(item.ids) for item in items]
        batch = TextBatch(
            input_ids=ids,
            labels=labels,
            attention_mask=pad_sequence(ones, True, 0, side),
        )
        asked = [item.question for item in items if item.question is not None]
        return batch if not asked else {**batch, "questions": asked}


class TokenSet(Dataset[Tokens]):
    """Rows, addressed by index or, in training, by (epoch, index)."""

    def __init__(self, rows: Sequence[Tokens]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | tuple[int, int]) -> Tokens:
        return self.rows[key[1] if isinstance(key, tuple) else key]
