"""Turn what a user can mend into one line; everything else keeps its traceback."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import NoReturn, ParamSpec

from datamodules.batch import DataError
from models.adapters import AdapterError
from models.networks import NetworkError
from models.record import CheckpointError

USER_ERRORS = (DataError, AdapterError, NetworkError, CheckpointError)
P = ParamSpec("P")


def one_line_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Make a command end with `error: ...` and exit code 1 on a user's mistake."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except USER_ERRORS as error:
            fail(_own_words(error))
        except OSError as error:
            # Files and disks are the user's; sockets and the like name no file.
            if error.filename is None:
                raise
            fail(f"{error.filename}: {error.strerror}")

    return wrapped


def fail(message: str) -> NoReturn:
    """Print one line on standard error and exit with code 1."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(1)


def _own_words(error: Exception) -> str:
    """The message without the traceback that a data-loading process puts before it."""
    text = str(error).strip()
    marker = f"{type(error).__name__}: "
    return " ".join(text.rsplit(marker, 1)[-1].split())
