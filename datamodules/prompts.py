"""An instruction as a model reads it: Alpaca's form, clean or as it was published."""

from typing import Literal

from datamodules.errors import DataError
from datamodules.files.instructions import Instruction

PromptName = Literal["clean", "compatible"]
TASK = "Below is an instruction that describes a task"
PAIRED = f"{TASK}, paired with an input that provides further context"
RESPOND = "Write a response that appropriately completes the request."
INDENT = " " * 16
"""Of LLM-Adapters (commit 8166572, finetune.py and commonsense_evaluate.py), which
indents all but the first line."""


def prompt_of(row: Instruction, name: PromptName, *, training: bool) -> str:
    """Everything before the answer; nothing of a row that is plain text.

    Args:
        row: What is asked.
        name: `clean` is one text for training and scoring. `compatible` is the
            published whitespace, with which both differ.
        training: Whether it is to be trained on.

    Raises:
        DataError: For another name.
    """
    if not row.instruction:
        return ""
    parts = [("Instruction", row.instruction), ("Input", row.input)]
    parts = [(head, text) for head, text in parts if text]
    first = f"{PAIRED if row.input else TASK}. {RESPOND}"
    if name == "clean":
        body = "".join(f"### {head}:\n{text}\n\n" for head, text in parts)
        return f"{first}\n\n{body}### Response:\n"
    if name != "compatible":
        raise DataError(f"prompt {name!r} is not known; use clean or compatible")
    # One space less where there is an input, in training and in evaluation.
    spaces = int(training) + int(not row.input)
    between = INDENT if training else ""
    body = "".join(
        f"{INDENT}### {head}:\n{INDENT}{text}\n{between}\n" for head, text in parts
    )
    return f"{first}{' ' * spaces}\n\n{body}{INDENT}### Response:\n{INDENT}"
