"""The errors that a user can mend: one base for every floor, nothing imported."""


class UserError(Exception):
    """What is wrong, what is allowed and what to do, in one line.

    Every error of this project that a person can mend by other input is one of these;
    the commands print its message without a traceback.
    """


class DataError(UserError):
    """Data that cannot be used; the message names the file and what to do."""
