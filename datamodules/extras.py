"""Packages that only an extra of this project installs."""

from importlib.util import find_spec

from datamodules.errors import UserError


class ExtraError(UserError):
    """A package is not installed; the message says which, and how to get it."""


def check_installed(what: str, extra: str, *packages: str) -> None:
    """Refuse to begin what needs packages that are not there.

    Args:
        what: Needs them; the message begins with it.
        extra: Of this project; it installs them.
        packages: As they are imported.

    Raises:
        ExtraError: Naming those that are missing, and what to type.
    """
    if missing := [name for name in packages if find_spec(name) is None]:
        raise ExtraError(
            f'{what} needs {", ".join(missing)}; pip install "lava-depth[{extra}]"'
        )
