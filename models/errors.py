"""Mistakes in files and options of training that a user can mend."""

from datamodules.errors import UserError


class CheckpointError(UserError):
    """A trained network that does not belong to this project, base or configuration."""


class ExportError(UserError):
    """A network that cannot be written in some form; the message says why."""


class OptionError(UserError):
    """An option of training outside its range; the message says which."""
