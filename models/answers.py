"""Which answer a language model gives: by generation, by likelihood, and counted."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from datamodules.texts import IGNORED, Question

RIGHT, COUNTED, NONE, BROKEN = range(4)


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
def likeliest(network: Any, questions: Sequence[Question]) -> list[str | None]:
    """The option of each question that is most likely after its prompt.

    None where a likelihood is not a number.

    One question at a time: without padding its prompt is computed once for all of its
    options, whose tokens follow on what the network keeps of it.

    Args:
        network: Of `transformers`.
        questions: Whose options are compared by the sum over their tokens.
    """
    found: list[str | None] = []
    for question in questions:
        sums = log_likelihoods(network, question.prompt, question.outputs)
        best = question.options[int(sums.argmax())]
        found.append(None if sums.isnan().any() else best)
    return found


def log_likelihoods(
    network: Any, prompt: Sequence[int], outputs: Sequence[Sequence[int]]
) -> Tensor:
    """(outputs,) in float32, of each output as a whole after one prompt.

    Args:
        network: Of `transformers`. One that keeps no keys and values (a state space
            model) reads the prompt again with each output.
        prompt: Tokens.
        outputs: Tokens, each at least one.
    """
    device, count = network.device, len(outputs)
    ids = torch.tensor(prompt, device=device)[None]
    own = [torch.tensor(tokens, device=device) for tokens in outputs]
    read = network(input_ids=ids, use_cache=True)
    last, kept = read.logits[:, -1:], _of_attention(read)
    if max(map(len, own)) == 1:
        rest = last.new_zeros(count, 0, last.shape[-1])
    else:
        follow = pad_sequence(own, True, 0)[:, :-1]
        again = ids.expand(count, -1)
        mask = torch.ones_like(torch.cat([again, follow], 1))
        for row, tokens in zip(mask, own, strict=True):
            row[len(prompt) + len(tokens) :] = 0
        if kept is None:
            whole = torch.cat([again, follow], 1)
            rest = network(input_ids=whole, attention_mask=mask, use_cache=False).logits
            rest = rest[:, len(prompt) :]
        else:
            kept.batch_repeat_interleave(count)
            rest = network(input_ids=follow, attention_mask=mask, cache=kept).logits
    logits = torch.cat([last.expand(count, -1, -1), rest], 1)
    target = pad_sequence(own, True, IGNORED)
    losses = F.cross_entropy(logits.float().mT, target, reduction="none")
    return -losses.sum(1)


def _of_attention(read: Any) -> Any:
    """The keys and values that a network kept, if all that it keeps are such."""
    from transformers.cache_utils import Cache, LinearAttentionCacheLayerMixin

    kept = getattr(read, "cache", None)
    if not isinstance(kept, Cache):
        return None
    # States of a recurrence go on token by token, and are not repeated for options.
    by_states = any(isinstance(k, LinearAttentionCacheLayerMixin) for k in kept.layers)
    return None if by_states else kept


@torch.no_grad()
def generated(
    network: Any, tokenizer: Any, questions: Sequence[Question], beams: int, new: int
) -> list[str | None]:
    """What a model says to each question, by a search without chance.

    None for all where a logit is not a number.

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
    watch = _Watch()
    found = network.generate(
        input_ids=prompt,
        attention_mask=mask,
        generation_config=config,
        logits_processor=[watch],
    )
    if watch.broken:
        return [None] * len(questions)
    new_tokens = found[:, prompt.shape[1] :]
    texts: list[str | None] = tokenizer.batch_decode(
        new_tokens, skip_special_tokens=True
    )
    return texts


class _Watch:
    """Sees every logit of a search."""

    def __init__(self) -> None:
        self.broken = False

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.broken |= bool(scores.isnan().any())
        return scores


class Tally:
    """Right answers by task, summed over processes."""

    def __init__(self, tasks: Sequence[str] = ("",)) -> None:
        self.tasks = tuple(tasks)
        self.sums = torch.zeros(len(self.tasks), 4, dtype=torch.long)

    def add(
        self, question: Question, task: str, found: str | None, *, broken: bool = False
    ) -> None:
        """Count an answer.

        Args:
            question: Which it is to.
            task: Of the question.
            found: None where there is none, which is wrong.
            broken: Whether the model's logits were no numbers.
        """
        own = self.sums[self.tasks.index(task)]
        own[BROKEN] += broken
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
