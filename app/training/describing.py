"""Names of all options of the commands of train.py, and of every class of ours."""

from collections.abc import Iterator
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

import datamodules
import models
from app.training import check_cli, making, score_cli
from app.training.command import CHECK, SCORE
from app.training.parser import OneLineParser
from models.adapters.methods import METHODS

Option = tuple[list[str], str | None, list[str] | None]
"""Its names, what it is, and what it may be, where that is a short list."""
ON_OFF = ["true", "false"]


class Found(Exception):  # noqa: N818 - it is no error
    """Carries a parser out of the command line that made it."""

    def __init__(self, parser: Any) -> None:
        self.parser = parser


def options_of(command: str) -> Iterator[Option]:
    """Each option of a command once, in the order of its help."""
    seen: set[str] = set()
    for action in (*_parser(command)._actions, *_of_classes()):
        names = [n for n in action.option_strings if not n.endswith("+")]
        names = [n for n in names if n not in seen and n not in ("-h", "--help")]
        seen.update(names)
        if names:
            about = None if action.help is None else str(action.help)
            yield names, about, _choices(action)


def _parser(command: str) -> Any:
    """The parser of one command, with what every class has."""

    class Parser(OneLineParser):
        def parse_args(self, *_: Any, **__: Any) -> NoReturn:
            raise Found(self)

    alone = {CHECK: check_cli.CheckCLI, SCORE: score_cli.ScoreCLI}
    try:
        if command in alone:
            making.made(alone[command], [], Parser, alone=command)
        else:
            making.made(making.of_command(command), [command], Parser)
    except Found as found:
        within = found.parser._subcommands_action
        return within._name_parser_map[command] if within else found.parser
    raise AssertionError(command)


@cache
def _of_classes() -> tuple[Any, ...]:
    """Options of every module, data set and adapter."""
    found: list[Any] = []
    homes = (("model", models), ("data", datamodules))
    kinds = [(at, getattr(home, n)) for at, home in homes for n in home.__all__]
    kinds += [("model.adapter", kind) for kind in METHODS.values()]
    for place, kind in kinds:
        own = OneLineParser()
        own.add_class_arguments(kind, place)
        found += own._actions
    return tuple(found)


def _choices(action: Any) -> list[str] | None:
    """What an option may be; None of one that may be anything."""
    hint = getattr(action, "_typehint", None)
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    choices: list[str] = []
    for member in members:
        if member is bool:
            choices += ON_OFF
        elif get_origin(member) is Literal:
            choices += map(str, get_args(member))
        elif member is not NoneType:
            return None
    return choices or None
