"""Instructions with their answers, as people keep them: JSON lists and JSON lines."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.errors import DataError

CORRECT = "the correct answer is "
"""Before the answer, in the files of LLM-Adapters."""
FORMAT = re.compile(r"Answer format: *(\S+(?:/\S+)+)\s*$")
"""At the end of an instruction: the labels that an answer may be."""
NAMED = 3


@dataclass(frozen=True)
class Instruction:
    """One row."""

    instruction: str
    output: str
    """What a model is to say."""
    input: str = ""
    answer: str | None = None
    """Which of the options is right; None where the row has none."""
    options: tuple[str, ...] = ()
    """Labels, or the texts that the row has as `options`."""
    outputs: tuple[str, ...] = ()
    """What a model would say for each of them."""


def read_instructions(path: Path) -> list[Instruction]:
    """All rows of a file.

    Args:
        path: A JSON list of objects, or one object a line: `instruction` and `output`,
            perhaps `input`, `answer` and `options` (a list of texts).

    Raises:
        DataError: Naming the rows that cannot be used, from 1.
    """
    rows: list[Instruction] = []
    wrong: dict[int, str] = {}
    for number, content in enumerate(_objects(path), 1):
        try:
            rows.append(parse(content))
        except DataError as error:
            wrong[number] = str(error)
    if wrong:
        first = "; ".join(f"row {n} {why}" for n, why in list(wrong.items())[:NAMED])
        more = f"; and {len(wrong) - NAMED} more rows" if len(wrong) > NAMED else ""
        raise DataError(f"{path}: {first}{more}; mend them or leave them out")
    if not rows:
        raise DataError(f"{path} has no rows")
    return rows


def parse(content: object) -> Instruction:
    """One row of an object in a file.

    Raises:
        DataError: What is wrong with it, as the end of "row N ...".
    """
    if not isinstance(content, Mapping):
        raise DataError("is no object with instruction and output")
    texts: dict[str, str] = {}
    for name in ("instruction", "output", "input", "answer"):
        needed = name in ("instruction", "output")
        value = content.get(name)
        if value is None and not needed:
            continue
        if not isinstance(value, str) or (needed and not value.strip()):
            raise DataError(f"has no text {name!r}")
        texts[name] = value
    output = texts["output"]
    options = content.get("options")
    if options is None:
        found = FORMAT.search(texts["instruction"])
        labels = tuple(found[1].split("/")) if found else ()
        answer = texts.get("answer") or output.removeprefix(CORRECT).strip()
        outputs = tuple(CORRECT + label for label in labels)
    elif isinstance(options, list) and all(isinstance(o, str) for o in options):
        labels = outputs = tuple(options)
        answer = texts.get("answer") or output
    else:
        raise DataError("has options that are no list of texts")
    if not labels:
        return Instruction(texts["instruction"], output, texts.get("input", ""))
    if answer not in labels:
        raise DataError(f"has the answer {answer!r}, which none of its options is")
    return Instruction(
        texts["instruction"], output, texts.get("input", ""), answer, labels, outputs
    )


def first_label(text: str, labels: Sequence[str]) -> str | None:
    """The first of the labels in a text, case-sensitive; None where there is none."""
    longest_first = sorted(labels, key=len, reverse=True)
    found = re.search("|".join(map(re.escape, longest_first)), text)
    return found[0] if found else None


def _objects(path: Path) -> list[Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error})") from None
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if isinstance(content, list):
        return content
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except ValueError:
            raise DataError(
                f"{path} is neither a JSON list nor an object a line (line {number}); "
                "save it as one of these"
            ) from None
    return rows
