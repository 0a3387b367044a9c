"""Turn what a user can mend into one line; everything else keeps its traceback."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import NoReturn, ParamSpec

from datamodules.errors import UserError

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


def _users_part(error: BaseException | None) -> str | None:
    """What in a chain of exceptions a user can mend, in its own words; else None."""
    while error is not None:
        if isinstance(error, UserError):
            # A data-loading process puts its traceback before the message.
            marker = f"{type(error).__name__}: "
            return str(error).rsplit(marker, 1)[-1]
        if _is_misconfiguration(error):
            return str(error)
        if isinstance(error, OSError) and error.filename is not None:
            return f"{error.filename}: {error.strerror}"
        if isinstance(error, FileNotFoundError):
            return str(error)
        # jsonargparse wraps what a constructor raises.
        error = error.__cause__
    return None


def _is_misconfiguration(error: BaseException) -> bool:
    """Whether Lightning, if it is imported, says that options contradict each other."""
    module = sys.modules.get("lightning.fabric.utilities.exceptions")
    return module is not None and isinstance(error, module.MisconfigurationException)
