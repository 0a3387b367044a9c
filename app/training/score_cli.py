"""The command line of train.py score: maps of any program under a recipe's protocol."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse.typing import PositiveFloat
from lightning.pytorch.cli import LightningArgumentParser

from app.training.data_cli import DataCLI
from app.training.making import made
from app.training.predicted import PredictedMaps
from app.training.score import score
from datamodules.base import DepthDataModule
from models.errors import OptionError
from models.scoring import Scoring


class ScoreCLI(DataCLI):
    """With what is scored, and how."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--predictions",
            type=str,
            required=True,
            help="Folder of depth maps that any program predicted, called as the test "
            "frames are: .npy, .npz, .pfm, .exr, 16-bit .png or .tif.",
        )
        parser.add_argument(
            "--depth_scale",
            type=PositiveFloat | None,
            default=None,
            help="Stored units per metre. null: what predict.py noted beside its own "
            "maps; numbers that are not whole are metres.",
        )
        # Those of `test`, but for what is a network's.
        parser.add_class_arguments(Scoring, None, skip={"flip_tta"})
        parser.set_defaults({"per_image": True})


def run(args: Sequence[str]) -> None:
    """Score the maps by the rules of a recipe's data."""
    cli = made(ScoreCLI, list(args), alone="score")
    given = cli.config
    if not isinstance(cli.datamodule, DepthDataModule):
        raise OptionError(
            f"{given.data.class_path} has no depth; score is for depth maps"
        )
    scoring = Scoring(
        align=given.align, boundary=given.boundary, per_image=given.per_image
    )
    maps = PredictedMaps(Path(given.predictions).expanduser(), given.depth_scale)
    score(cli.datamodule, maps, scoring)
