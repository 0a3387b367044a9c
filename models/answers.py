"""Which answer a language model gives: by generation, by likelihood, and counted."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from datamodules.texts import IGNORED, Question

RIGHT, COUNTED, NONE = range(3)


def answer_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of each token in the loss, and the row that it is of.

    Args:
        logits: (B, T, tokens).
        labels: (B, T), -100 where a token is not in the loss.
    """
    wanted = labels[:, 1:] != IGNORED
    # Only these become float32: of long prompts most are not wanted.
    chosen, target = logits[:, :-1][wanted].float(), labels[:, 1:][wanted]
    rows = wanted.nonzero()[:, 0]
    return F.cross_entropy(chosen, target, reduction="none"), rows


@torch.no_grad()
def likeliest(module: Any, questions: Sequence[Question], batch_size: int) -> list[str]:
    """The option of each question that is most likely after its prompt.

    Args:
        module: Takes (B, T) tokens and mask to logits.
        questions: Whose options are compared by the sum over their tokens.
        batch_size: Sequences at a time.
    """
    each = [
        (torch.tensor(q.prompt + out), len(q.prompt))
        for q in questions
        for out in q.outputs
    ]
    sums: list[float] = []
    for start in range(0, len(each), batch_size):
        some = each[start : start + batch_size]
        ids = [tokens.to(module.device) for tokens, _ in some]
        labels = [tokens.clone() for tokens in ids]
        for label, (_, prompt) in zip(labels, some, strict=True):
            label[:prompt] = IGNORED
        mask = pad_sequence([torch.ones_like(i) for i in ids], True, 0)
        logits = module(pad_sequence(ids, True, 0), mask)
        losses, rows = answer_loss(logits, pad_sequence(labels, True, IGNORED))
        total = losses.new_zeros(len(some)).index_add(0, rows, losses)
        sums += (-total).tolist()
    values = iter(sums)
    found = [[next(values) for _ in q.outputs] for q in questions]
    return [
        q.options[own.index(max(own))] for q, own in zip(questions, found, strict=True)
    ]


@torch.no_grad()
def generated(
    network: Any, tokenizer: Any, questions: Sequence[Question], beams: int, new: int
) -> list[str]:
    """What a model says to each question, by a search without chance.

    Args:
        network: Of `transformers`.
        tokenizer: Its own.
        questions: Padded on the left, with a mask.
        beams: Of the search.
        new: Tokens at most.
    """
    import transformers

    pad = tokenizer.pad_token_id
    new_config: Any = transformers.GenerationConfig  # untyped there
    config = new_config(
        num_beams=beams,
        do_sample=False,
        max_new_tokens=new,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id if pad is None else pad,
    )
    ids = [torch.tensor(q.prompt, device=network.device) for q in questions]
    ones = [torch.ones_like(i) for i in ids]
    prompt = pad_sequence(ids, True, config.pad_token_id, "left")
    mask = pad_sequence(ones, True, 0, "left")
    found = network.generate(
        input_ids=prompt, attention_mask=mask, generation_config=config
    )
    new_tokens = found[:, prompt.shape[1] :]
    texts: list[str] = tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
    return texts


class Tally:
    """Right answers by task, summed over processes."""

    def __init__(self, tasks: Sequence[str] = ("",)) -> None:
        self.tasks = tuple(tasks)
        self.sums = torch.zeros(len(self.tasks), 3, dtype=torch.long)

    def add(self, question: Question, task: str, found: str | None) -> None:
        """Count an answer; None where there is none, which is wrong."""
        own = self.sums[self.tasks.index(task)]
        own[RIGHT] += found == question.answer
        own[COUNTED] += 1
        own[NONE] += found is None

    def rows(self, sums: Tensor) -> Iterator[tuple[str, dict[str, Any]]]:
        """Tasks that had items, each with its scores.

        Args:
            sums: `sums` of all processes together.
        """
        for task, own in zip(self.tasks, sums.tolist(), strict=True):
            if not own[COUNTED]:
                continue
            part = own[RIGHT] / own[COUNTED]
            yield (
                task,
                {
                    "accuracy": part,
                    "standard_error": math.sqrt(part * (1 - part) / own[COUNTED]),
                    "n_items": own[COUNTED],
                    "no_answer": own[NONE],
                },
            )
