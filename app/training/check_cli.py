"""The command line of train.py check: any recipe, of which the data are made alone."""

from collections.abc import Sequence

import jsonargparse
from jsonargparse.typing import PositiveInt
from lightning.pytorch.cli import LightningArgumentParser

from app.training.cli import TaskCLI, set_up
from app.training.data_check import check_data
from app.training.parser import OneLineParser
from datamodules.task_data import TaskDataModule
from models.task_module import TaskModule


class CheckCLI(TaskCLI):
    """Takes the options of `fit`; no weights are read, and no run folder is made."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--frames",
            type=PositiveInt,
            default=64,
            help="How many frames of each split are looked at.",
        )

    def before_instantiate_classes(self) -> None:
        pass

    def instantiate_classes(self) -> None:
        parser = OneLineParser()
        parser.add_subclass_arguments(TaskDataModule, "data")
        config = jsonargparse.Namespace(data=self.config.data)  # type: ignore[no-untyped-call]
        self.datamodule = parser.instantiate(config).data


def run(args: Sequence[str]) -> None:
    """Look at the data of a recipe."""
    set_up()
    cli = CheckCLI(
        TaskModule,
        TaskDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        parser_class=OneLineParser,
        parser_kwargs={"prog": "train.py check"},
        save_config_callback=None,
        run=False,
        args=list(args),
    )
    check_data(cli.datamodule, cli.config.frames)
