"""Instructions as people keep them, and as models read them."""

import json

import pytest

from datamodules.commonsense import TASKS, CommonsenseDataModule
from datamodules.errors import DataError
from datamodules.files.instructions import (
    Instruction,
    first_label,
    parse,
    read_instructions,
)
from datamodules.prompts import prompt_of
from tests.conftest import REAL_DATA, needs_real_data
from tests.language.models import row

SIZES = {
    **{"boolq": 3270, "piqa": 1838, "social_i_qa": 1954, "winogrande": 1267},
    **{"ARC-Easy": 2376, "ARC-Challenge": 1172, "openbookqa": 500},
}


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "lines.json"])
def test_rows__are_read_from_a_list_and_from_lines(tmp_path, name):
    rows, path = [row(i) for i in range(5)], tmp_path / name
    lines = "\n".join(json.dumps(each) for each in rows) + "\n\n"
    path.write_text(json.dumps(rows) if name == "rows.json" else lines)
    found = read_instructions(path)
    assert [r.answer for r in found] == [each["answer"] for each in rows]
    assert found[0].options == ("answer1", "answer2", "answer3")
    assert found[0].outputs[1] == "the correct answer is answer2"


def test_row__of_options_as_text_or_of_none():
    asked = {"instruction": "Which?", "output": "red", "options": ["blue", "red"]}
    assert parse(asked).outputs == ("blue", "red")
    assert parse(asked).answer == "red"
    free = parse({"instruction": "Say something.", "output": "Something."})
    assert (free.answer, free.options) == (None, ())


WRONG = {
    "no output": ({"output": ""}, "row 2 has no text 'output'"),
    "no instruction": ({"instruction": None}, "row 2 has no text 'instruction'"),
    "number": ({"input": 3}, "row 2 has no text 'input'"),
    "label": ({"answer": "answer7"}, "row 2 has the answer 'answer7', which none"),
    "options": ({"options": "a"}, "row 2 has options that are no list"),
}


@pytest.mark.parametrize("case", WRONG)
def test_rows__that_cannot_be_used_are_named(tmp_path, case):
    change, message = WRONG[case]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([row(0), {**row(1), **change}, row(2)]))
    with pytest.raises(DataError, match=message):
        read_instructions(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "has no rows"),
        ("{", r"neither a JSON list nor an object a line \(line 1\)"),
        ('["a"]', "row 1 is no object"),
        ("[1, 2, 3, 4, 5]", "and 2 more rows"),
    ],
)
def test_file__that_is_none_is_refused(tmp_path, text, message):
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_instructions(path)


def test_prompt__clean_is_one_for_training_and_scoring():
    asked = Instruction("Do it.", "Done.", "This.")
    texts = {prompt_of(asked, "clean", training=t) for t in (True, False)}
    assert texts == {
        "Below is an instruction that describes a task, paired with an input that "
        "provides further context. Write a response that appropriately completes the "
        "request.\n\n### Instruction:\nDo it.\n\n### Input:\nThis.\n\n### Response:\n"
    }


@pytest.mark.parametrize("training", [True, False])
def test_prompt__compatible_has_the_published_whitespace(training):
    """As in LLM-Adapters at 8166572, where both files differ."""
    first = (
        "Below is an instruction that describes a task. Write a response that "
        "appropriately completes the request."
    )
    indent = 16 * " "
    lines = [
        first + ("  " if training else " "),
        "",
        f"{indent}### Instruction:",
        f"{indent}Do it.",
        indent if training else "",
        f"{indent}### Response:",
        indent,
    ]
    asked = Instruction("Do it.", "Done.")
    assert prompt_of(asked, "compatible", training=training) == "\n".join(lines)


def test_label__is_the_first_in_the_text_and_the_longest_there():
    labels = ("answer1", "answer10", "answer2")
    assert (
        first_label("the correct answer is answer10 or answer2", labels) == "answer10"
    )
    assert first_label("Answer1", labels) is None


@needs_real_data
@pytest.mark.parametrize("task", SIZES)
def test_real_files__are_read_and_every_answer_is_found(task):
    rows = read_instructions(REAL_DATA / "commonsense" / task / "test.json")
    assert len(rows) == SIZES[task]
    found = [first_label(each.output, TASKS[task]) for each in rows]
    assert found == [each.answer for each in rows]


def test_tasks__own_missing_and_unknown(tmp_path):
    for name in ("ARC-Easy", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "test.jsonl").write_text(json.dumps(row(0)))
    data = CommonsenseDataModule(str(tmp_path), tasks=["ARC-Easy", "mine", "boolq"])
    assert list(data.rows("test")) == ["ARC-Easy", "mine"]
    assert data.missing == ("boolq",)
    data = CommonsenseDataModule(str(tmp_path), tasks=["nowhere"])
    with pytest.raises(DataError, match=r"has no nowhere/test\.json"):
        data.rows("test")
    data = CommonsenseDataModule(str(tmp_path), tasks=["piqa"])
    with pytest.raises(DataError, match="has none of piqa"):
        data.rows("test")
    with pytest.raises(DataError, match=r"there is no commonsense_170k\.json"):
        data.rows("train")


def test_repository__of_the_literature_is_a_root(tmp_path):
    (tmp_path / "dataset/boolq").mkdir(parents=True)
    (tmp_path / "ft-training_set").mkdir()
    (tmp_path / "dataset/boolq/test.json").write_text(json.dumps([row(0)]))
    rows = json.dumps([row(i) for i in range(9)])
    (tmp_path / "ft-training_set/commonsense_170k.json").write_text(rows)
    data = CommonsenseDataModule(str(tmp_path), n_val=2)
    assert [len(data.rows(part)[""]) for part in ("train", "val")] == [7, 2]
    assert list(data.rows("test")) == ["boolq"]
