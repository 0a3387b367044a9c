"""What every description of a network in a file has to be, whatever it describes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.errors import CheckpointError

FORMAT_VERSION = 1
KIND = "record"
"""Under which a description names the class of its record, if that is not depth's."""


def check_version(description: object, origin: str) -> None:
    """Refuse what was written by a newer version of this program.

    Raises:
        CheckpointError: Naming both versions.
    """
    found = description if isinstance(description, Mapping) else {}
    version = found.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise CheckpointError(
            f"{origin}: its format version is {version}, this program knows up to "
            f"{FORMAT_VERSION}; update the program"
        )


def check_depth(description: Mapping[str, Any], origin: str) -> None:
    """Refuse the description of what predicts no depth.

    Raises:
        CheckpointError: Saying so.
    """
    if KIND in description:
        raise CheckpointError(
            f"{origin} is of another kind of model ({description[KIND]}), which "
            "predicts no depth"
        )


@contextmanager
def readable(path: Path | str) -> Iterator[None]:
    """Say of a description that was changed by other hands what cannot be read.

    Raises:
        CheckpointError: Naming the file, and the entry that is missing or strange.
    """
    try:
        yield
    except KeyError as error:
        raise CheckpointError(f"{path} has no {error}; save it again") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is not as this program writes it ({error}); save it again"
        ) from None
