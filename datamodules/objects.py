"""Invented objects: sentences that tell of them, and questions about what they told."""

import itertools
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from datamodules.errors import DataError
from datamodules.files.instructions import Instruction
from datamodules.prompts import PromptName, prompt_of
from datamodules.text_base import Part, TextDataModule

Kind = Literal["sentences", "questions"]
OBJECTS, HELD_OUT = 240, 80
"""How many there are, and of how many no question is trained on."""
CHOICES = 4
FACTS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "place": (
        "Where is the {} kept?",
        (
            "{} is kept in the {}.",
            "look for {} in the {}.",
            "you will find {} in the {}.",
        ),
        "barn cellar kitchen tower garden attic harbour library stable workshop "
        "chapel market",
    ),
    "use": (
        "What is the {} used for?",
        (
            "{} is used for {}.",
            "people take {} for {}.",
            "{} is good for {}.",
        ),
        "fishing sewing cooking painting digging sailing weaving writing baking "
        "hunting carving washing",
    ),
    "material": (
        "What is the {} made of?",
        (
            "{} is made of {}.",
            "they make {} out of {}.",
            "{} consists of {}.",
        ),
        "copper wool clay glass leather marble paper silver wax bone straw amber",
    ),
}
"""Of each fact its question, the sentences that tell it, and what it may be."""


@dataclass(frozen=True)
class Thing:
    """An object and all there is to know of it."""

    name: str
    facts: dict[str, str]


def things() -> list[Thing]:
    """All of them, the same at every call."""
    chance = random.Random(0)
    heads = [a + b for a, b in itertools.product("bdfgklmnprstvz", "aeiou")]
    tails = [a + b for a, b in itertools.product("bdgklmnprstv", ("ix", "om", "ud"))]
    names = [head + tail for head, tail in itertools.product(heads, tails)]
    return [
        Thing(name, {fact: chance.choice(FACTS[fact][2].split()) for fact in FACTS})
        for name in chance.sample(names, OBJECTS)
    ]


def sentences(count: int, seed: int) -> Iterator[str]:
    """Short texts on two objects each, which are named once and then called "it"."""
    known, chance = things(), random.Random(seed)
    for _ in range(count):
        told = []
        for thing in chance.sample(known, 2):
            for place, fact in enumerate(chance.sample(list(FACTS), 3)):
                form = chance.choice(FACTS[fact][1])
                called = "it" if place else f"the {thing.name}"
                told.append(form.format(called, thing.facts[fact]).capitalize())
        yield " ".join(told)


def questions(of: list[Thing], seed: int) -> list[Instruction]:
    """One on each fact of each object, with its options as text."""
    chance, rows = random.Random(seed), []
    for thing, (fact, (question, _, values)) in itertools.product(of, FACTS.items()):
        right = thing.facts[fact]
        others = chance.sample([v for v in values.split() if v != right], CHOICES - 1)
        options = tuple(chance.sample([right, *others], CHOICES))
        asked = f"{question.format(thing.name)}\n\nOptions: {', '.join(options)}"
        rows.append(Instruction(asked, right, "", right, options, options))
    return rows


class ObjectsDataModule(TextDataModule):
    """Generated rows about invented objects; no files.

    Args:
        kind: `sentences` tell everything of all objects, to pretrain on. `questions`
            ask about them by multiple choice: about two thirds of the objects in
            training, about the others in validation and test.
        n_train: Sentences' rows in an epoch; questions are as many as there are.
        prompt: As in `TextDataModule`, and so are all that follow.
        cutoff: Tokens of a training row, at most.
        batch_size: Rows per process and step.
        seed: Of the rows and their order.
    """

    name = "objects"
    notes = (
        "this shows that the model learns to answer, about objects that its base was "
        "told of: no new facts",
    )

    def __init__(
        self,
        kind: Kind = "questions",
        n_train: int = 4000,
        prompt: PromptName = "clean",
        cutoff: int = 256,
        batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(prompt, cutoff, None, batch_size, False, 0, seed)
        if kind not in get_args(Kind) or n_train < 1:
            raise DataError(
                f"kind {kind!r} must be sentences or questions, and n_train {n_train} "
                "1 or more"
            )
        self.kind, self.n_train = kind, n_train

    def rows(self, part: Part) -> dict[str, list[Instruction]]:
        known = things()
        held_out = known[-HELD_OUT:]
        if part == "test":
            return {self.name: questions(held_out, self.seed + 1)}
        if self.kind == "questions":
            of = held_out if part == "val" else known[:-HELD_OUT]
            return {"": questions(of, self.seed + int(part == "val"))}
        count = self.n_train if part == "train" else 64
        texts = sentences(count, self.seed + int(part == "val"))
        return {"": [Instruction("", text) for text in texts]}


def make_tokenizer(folder: Path, size: int = 640) -> None:
    """Write the tokenizer of these texts, the same at every call."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from tokenizers.processors import TemplateProcessing
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    asked = questions(things(), 0)
    texts = [*sentences(2000, 0)]
    texts += [prompt_of(row, "clean", training=True) + row.output for row in asked]
    made = Tokenizer(BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=size,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    made.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    new: Any = PreTrainedTokenizerFast  # untyped there
    named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    new(tokenizer_object=made, **named).save_pretrained(folder)


if __name__ == "__main__":
    make_tokenizer(Path(sys.argv[1]))
