"""The command line of train.py check: any recipe, of which the data are made alone."""

from collections.abc import Sequence

from jsonargparse.typing import PositiveInt
from lightning.pytorch.cli import LightningArgumentParser

from app.training.data_check import check_data
from app.training.data_cli import DataCLI
from app.training.making import made


class CheckCLI(DataCLI):
    """With how much is looked at."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--frames",
            type=PositiveInt,
            default=64,
            help="How many frames of each split are looked at.",
        )


def run(args: Sequence[str]) -> None:
    """Look at the data of a recipe."""
    cli = made(CheckCLI, list(args), alone="check")
    check_data(cli.datamodule, cli.config.frames)
