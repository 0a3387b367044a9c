"""Turn what a user can mend into one line; everything else keeps its traceback."""

import errno
import linecache
import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import NoReturn, ParamSpec

from datamodules.errors import UserError

P = ParamSpec("P")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""A disk, a quota or a file that holds no more; such errors come without a name."""

INTERRUPTED = 128 + signal.SIGINT
"""The exit code that shells give a command that Ctrl-C has ended."""


def one_line_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Make a command end with `error: ...` and exit code 1 on a user's mistake."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise SystemExit(INTERRUPTED) from None
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


def _users_part(error: BaseException | None) -> str | None:
    """What in a chain of exceptions a user can mend, in its own words; else None."""
    while error is not None:
        if isinstance(error, UserError):
            # A data-loading process puts its traceback before the message.
            marker = f"{type(error).__name__}: "
            return str(error).rsplit(marker, 1)[-1]
        if _raised_by_lightning(error):
            return str(error.args[0] if error.args else error)
        if isinstance(error, OSError) and error.errno in FULL:
            return f"{error.strerror}: what was being written is not complete"
        if isinstance(error, OSError) and error.filename is not None:
            return f"{error.filename}: {error.strerror}"
        if isinstance(error, FileNotFoundError):
            return str(error)
        if isinstance(error, ModuleNotFoundError) and error.name is None:
            # Not of an import: somebody's words on an extra that has to be installed.
            return str(error)
        # jsonargparse wraps what a constructor raises.
        error = error.__cause__
    return None


def _raised_by_lightning(error: BaseException) -> bool:
    """Whether Lightning raised it itself, which it does for options that do not fit.

    It has no common class for that. What it only passes on was raised elsewhere, and
    what fails within it fails on another statement.
    """
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None:
        return False
    module = str(frame.tb_frame.f_globals.get("__name__"))
    path = frame.tb_frame.f_code.co_filename
    statement = linecache.getline(path, frame.tb_lineno).lstrip()
    return module.startswith("lightning.") and statement.startswith("raise ")
