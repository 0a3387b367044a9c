"""Rows as tokens: what is in the loss, what is cut, how batches are made."""

import pytest
import torch

from datamodules.errors import DataError
from datamodules.files.instructions import parse
from datamodules.loading import LengthSampler, ResumableLoader
from datamodules.objects import HELD_OUT, ObjectsDataModule, questions, things
from datamodules.prompts import prompt_of
from datamodules.texts import IGNORED, Collate, Cut, Encoder, Tokens, TokenSet, fitted
from models.networks.causal import PACKAGED
from tests.language.models import row, tokenizer


@pytest.fixture(scope="module")
def ours():
    return tokenizer()


def encoder(ours, prompt="clean", cutoff=256) -> Encoder:
    return Encoder(ours, prompt, cutoff)


ROWS = [parse(row(i)) for i in range(3)]


def test_clean__loss_is_over_the_answer_and_its_end(ours):
    own = encoder(ours)
    items, cut = fitted(own.rows(ROWS), own, "error", "rows")
    assert cut == Cut(3)
    for item, asked in zip(items, ROWS, strict=True):
        told = item.labels != IGNORED
        assert ours.decode(item.ids[told]) == asked.output + "</s>"
        assert ours.decode(item.ids[~told]) == prompt_of(asked, "clean", training=True)


def test_clean__scoring_has_the_prefix_of_training(ours):
    own = encoder(ours)
    (first, *_), asked = own.rows(ROWS), own.questions("t", ROWS)[0]
    ids, start = first
    assert ids[:start] == asked.prompt
    assert ids[start:-1] == asked.outputs[asked.options.index(asked.answer)]


def test_compatible__all_is_in_the_loss_and_padded_on_the_left_with_0(ours):
    own = encoder(ours, "compatible")
    long = parse({**row(0), "instruction": 3 * row(0)["instruction"]})
    items, _ = fitted(own.rows([*ROWS, long]), own, "cut", "rows")
    assert torch.equal(items[0].labels, items[0].ids)
    assert items[0].ids[-1] == ours.eos_token_id
    batch = Collate("compatible", 7)([items[0], items[3]])
    pad = batch["input_ids"].shape[1] - len(items[0].ids)
    assert pad > 0
    assert batch["input_ids"][0, :pad].unique().tolist() == [0]
    assert batch["attention_mask"][0].tolist() == [0] * pad + [1] * len(items[0].ids)
    assert batch["labels"][0, :pad].unique().tolist() == [IGNORED]


def test_compatible__end_of_text_stands_only_below_the_cutoff(ours):
    length = len(encoder(ours, "compatible").rows(ROWS[:1])[0][0])
    for cutoff, ends, cuts in (
        (length, True, 0),
        (length - 1, False, 0),
        (50, False, 1),
    ):
        own = encoder(ours, "compatible", cutoff)
        (item,), cut = fitted(own.rows(ROWS[:1]), own, "cut", "rows")
        assert (item.ids[-1].item() == ours.eos_token_id) == ends
        assert cut == Cut(1, cuts)


def test_cutoff__is_an_error_or_counted(ours):
    whole, start = encoder(ours).rows(ROWS)[0]
    own = encoder(ours, cutoff=len(whole) - 1)
    with pytest.raises(DataError, match=f"rows: row 1 has {len(whole)} tokens, and 3"):
        fitted(own.rows(ROWS), own, "error", "rows")
    items, cut = fitted(own.rows(ROWS), own, "cut", "rows")
    assert cut == Cut(3, cut=3)
    assert {item.ids[-1].item() == ours.eos_token_id for item in items} == {False}
    for on_long in ("cut", "skip"):
        # Of whose answer nothing is left nothing can be learned.
        own = encoder(ours, cutoff=start)
        with pytest.raises(DataError, match="none of the 3 rows has a token of its"):
            fitted(own.rows(ROWS), own, on_long, "rows")
    short = parse({"instruction": "Hm?", "output": "Yes."})
    items, cut = fitted(own.rows([*ROWS, short]), own, "cut", "rows")
    assert [item is None for item in items] == [True, True, True, False]
    assert cut == Cut(4, left_out=3)


LENGTHS = [3 + 7 * i % 50 for i in range(203)]


@pytest.mark.parametrize("replicas", [1, 2])
def test_length_sampler__has_all_once_in_batches_of_one_length(replicas):
    shares = [LengthSampler(LENGTHS, 4, replicas, rank, 5) for rank in range(replicas)]
    seen = [[index for _, index in share] for share in shares]
    assert set().union(*seen) == set(range(203))
    for own in seen:
        batches = [own[i : i + 4] for i in range(0, len(own) - 4, 4)]
        spans = [
            max(LENGTHS[i] for i in b) - min(LENGTHS[i] for i in b) for b in batches
        ]
        assert max(spans) <= 3
    again = [index for _, index in shares[0]]
    assert again == seen[0]
    shares[0].set_epoch(1)
    assert [index for _, index in shares[0]] != seen[0]


def test_length_sampler__goes_on_in_the_middle_of_an_epoch():
    items = TokenSet([Tokens(torch.ones(n), torch.ones(n)) for n in LENGTHS])

    def loader():
        sampler = LengthSampler(LENGTHS, 4, 1, 0, 5)
        return ResumableLoader(
            items, batch_size=4, sampler=sampler, collate_fn=Collate("clean", 0)
        )

    whole, first, second = loader(), loader(), loader()
    expected = [batch["input_ids"].shape for batch in whole]
    for taken, _ in enumerate(first, 1):
        if taken == 20:
            second.load_state_dict(first.state_dict())
            break
    assert [batch["input_ids"].shape for batch in second] == expected[20:]


def test_objects__held_out_ones_are_in_no_training_question():
    data = ObjectsDataModule()
    names = {thing.name for thing in things()[-HELD_OUT:]}
    assert len({thing.name for thing in things()}) == len(things())
    texts = [each.instruction for each in data.rows("train")[""]]
    assert not any(name in text for name in names for text in texts)
    for part in ("val", "test"):
        (rows,) = data.rows(part).values()
        assert len(rows) == 3 * HELD_OUT
        assert all(any(name in r.instruction for name in names) for r in rows)
        assert {len(set(r.options)) for r in rows} == {4}
    assert questions(things(), 0) == questions(things(), 0)


def test_objects__tokenizer_is_made_again_to_the_byte(tmp_path):
    from datamodules.objects import make_tokenizer

    make_tokenizer(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (PACKAGED / name).read_bytes()
