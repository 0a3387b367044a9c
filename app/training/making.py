"""Makes the command lines of train.py, which runs them."""

from typing import TypeVar

import jsonargparse
from lightning.pytorch.cli import ArgsType

from app.quiet import quiet
from app.training import options
from app.training.cli import TaskCLI
from app.training.parser import OneLineParser
from datamodules.task_data import TaskDataModule
from models.adapters import AdapterConfig
from models.task_module import TaskModule

Line = TypeVar("Line", bound=TaskCLI)


def run(args: ArgsType, command: str) -> None:
    """Run one command."""
    made(of_command(command), args)


def of_command(command: str) -> type[TaskCLI]:
    """The command line of fit, validate or test."""

    class CommandCLI(TaskCLI):
        pass

    CommandCLI.command = command
    return CommandCLI


def made(
    kind: type[Line],
    args: ArgsType,
    parser: type[OneLineParser] = OneLineParser,
    *,
    alone: str | None = None,
) -> Line:
    """A command line over modules and data of any kind, made and run.

    Args:
        kind: Which one.
        args: What was typed.
        parser: What reads it.
        alone: Name of a command that trains nothing and has no others beside it.
    """
    set_up()
    return kind(
        TaskModule,
        TaskDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        parser_class=parser,
        parser_kwargs={"prog": f"train.py {alone}"} if alone else None,
        # Rates, groups and schedule belong to `--model.optimisation`.
        auto_configure_optimizers=False,
        save_config_callback=None if alone else options.KeepOptions,
        save_config_kwargs={"overwrite": True},
        run=alone is None,
        args=args,
    )


def set_up() -> None:
    """What must be so before a parser is made."""
    quiet()
    # Adapters are dataclasses with subclasses; jsonargparse takes such for closed.
    jsonargparse.set_parsing_settings(
        subclasses_enabled=[AdapterConfig], docstring_parse_attribute_docstrings=True
    )
