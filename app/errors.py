"""Turn what a user can mend into one line; everything else keeps its traceback."""

import re
import sys
from collections.abc import Callable
from functools import wraps
from typing import NoReturn, ParamSpec

from lightning.pytorch.cli import LightningArgumentParser

from datamodules.batch import DataError
from models.adapters import AdapterError
from models.artefacts.exports import ExportError
from models.artefacts.record import CheckpointError
from models.depth_module import OptionError
from models.networks import NetworkError

USER_ERRORS = (
    ExportError,
    DataError,
    AdapterError,
    NetworkError,
    CheckpointError,
    OptionError,
)
NOISE = (
    "Does not validate against",
    "Subtypes:",
    "Errors:",
    "Problem with",
    "Expected a path but",
    "Expected a <class 'NoneType'>",
)
P = ParamSpec("P")


def one_line_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Make a command end with `error: ...` and exit code 1 on a user's mistake."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except Exception as error:
            message = _users_part(error)
            if message is None:
                raise
            fail(message)

    return wrapped


def fail(message: str) -> NoReturn:
    """Print one line on standard error and exit with code 1."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(1)


class OneLineParser(LightningArgumentParser):
    """A parser whose complaints are one line instead of a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:
            # A parser within the parser: the outer one adds its keys.
            super().error(message, ex)
        fail(f"{_condensed(message)}; see {self.prog.split(' [')[0]} --help")


def _users_part(error: BaseException | None) -> str | None:
    """What in a chain of exceptions a user can mend, in its own words; else None."""
    while error is not None:
        if isinstance(error, USER_ERRORS):
            # A data-loading process puts its traceback before the message.
            marker = f"{type(error).__name__}: "
            return str(error).rsplit(marker, 1)[-1]
        if isinstance(error, OSError) and error.filename is not None:
            return f"{error.filename}: {error.strerror}"
        if isinstance(error, FileNotFoundError):
            return str(error)
        # jsonargparse wraps what a constructor raises.
        error = error.__cause__
    return None


def _condensed(message: str) -> str:
    """The keys that led to a value, and the first thing that is wrong with it.

    jsonargparse lists what every member of a union has against a value, level by
    level, and then the values.
    """
    keys: list[str] = []
    for line in message.splitlines():
        text = line.strip().removeprefix("- ")
        key = re.match(r'Parser key "(.+?)":\s*(.*)', text)
        if key:
            keys.append(key[1])
            text = key[2]
        if text and not text.startswith(NOISE):
            return ": ".join([".".join(keys), text] if keys else [text])
    return message
