"""The option parser of train.py, whose complaints are one line."""

import re
from enum import Enum
from typing import Any, NoReturn

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from app.errors import fail

NOISE = (
    "Does not validate against",
    "Subtypes:",
    "Errors:",
    "Problem with",
    "Expected a path but",
    "Expected a <class 'NoneType'>",
)
EXPECTED = re.compile(
    r"Expected a (?:<class '(\w+)'>|typing\.Literal\[(.+?)\])(?:\. Got value: .*)?$",
    re.MULTILINE,
)
GIVEN = re.compile(r"(?:Given|Got) value: (.*?)(?:\. Got value: .*)?$", re.MULTILINE)
# Defaults of Lightning's own (`Timer.interval`) that PyYAML cannot write.
yaml.SafeDumper.add_multi_representer(
    Enum, lambda dumper, value: dumper.represent_data(value.value)
)


class OneLineParser(LightningArgumentParser):
    """A parser whose complaints are one line instead of a page of usage."""

    def parse_args(self, args: Any = None, *more: Any, **named: Any) -> Any:
        if args is not None and not self.exit_on_error:
            # jsonargparse hands a null on to the parser within as the text None.
            args = [re.sub(r"^(--[\w.]+)=None$", r"\1=null", word) for word in args]
        return super().parse_args(args, *more, **named)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:
            # A parser within the parser: the outer one adds its keys.
            super().error(message, ex)
        fail(f"{_condensed(message)}; see {self.prog.split(' [')[0]} --help")


def _condensed(message: str) -> str:
    """The keys that led to a value, and the first thing that is wrong with it.

    jsonargparse lists what every member of a union has against a value, level by
    level, and then the values.
    """
    keys: list[str] = []
    for line in message.splitlines():
        text = line.strip().removeprefix("- ")
        key = re.match(r'(?:Type .* callable class: )?Parser key "(.+?)":\s*(.*)', text)
        if key:
            keys.append(key[1])
            text = key[2]
        if text and not text.startswith(NOISE):
            expected = _expected(message) if text.startswith("Expected a ") else None
            if expected is not None:
                return f"{'.'.join(keys)} {expected}".lstrip()
            text = text.partition(". Got value: Namespace(")[0]
            return ": ".join([".".join(keys), text] if keys else [text])
    return message


def _expected(message: str) -> str | None:
    """What was given, and all that is allowed, of a value that is of no type."""
    found = EXPECTED.findall(message)
    allowed = [name or choices for name, choices in found if name != "NoneType"]
    given = GIVEN.findall(message)
    if not allowed or not given:
        return None
    return f"is {given[0]!r}, but must be {' or '.join(allowed)}"
