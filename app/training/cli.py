"""The command line of train.py: fit, validate and test."""

from pathlib import Path

import jsonargparse
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import (
    ArgsType,
    LightningArgumentParser,
    LightningCLI,
    SaveConfigCallback,
)
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from app.quiet import quiet
from app.training.checkpoint_files import WholeCheckpoints
from app.training.command import COMMANDS
from app.training.metrics_file import MetricsFile
from app.training.parser import OneLineParser
from app.training.previews import Previews
from app.training.results import Summary, TestResults
from datamodules.base import DepthDataModule
from models.adapters import AdapterConfig
from models.artefacts.files import read_torch
from models.depth_module import DepthModule, Scoring
from models.errors import CheckpointError

RUNS = Path("runs")


class DepthCLI(LightningCLI):
    """LightningCLI with this project's links, callbacks and run folder.

    A run writes everything into `runs/<config name>/version_N/` (below
    `--trainer.default_root_dir` if that is given); a run that resumes from a
    checkpoint goes on in that checkpoint's own folder.
    """

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Those that train.py has; photographs are predict.py's."""
        all_of_them = LightningCLI.subcommands()
        return {name: all_of_them[name] for name in COMMANDS}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name in ("max_depth", "image_size"):
            parser.link_arguments(
                f"data.{name}", f"model.init_args.{name}", apply_on="instantiate"
            )
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(Previews, "previews")
        parser.add_lightning_class_args(Summary, "summary")
        parser.add_lightning_class_args(TestResults, "results")
        parser.add_lightning_class_args(LearningRateMonitor, "learning_rate")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/abs_rel",
                "checkpoint.mode": "min",
                "checkpoint.filename": "best",
                "checkpoint.save_last": True,
                "checkpoint.enable_version_counter": False,
                "trainer.precision": _default_precision(),
                "trainer.gradient_clip_val": 1.0,
                # All of it: the score before the first step.
                "trainer.num_sanity_val_steps": -1,
                "trainer.log_every_n_steps": 10,
            }
        )

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: object
    ) -> LightningArgumentParser:
        """Options of one command alone; Lightning has no public place for them."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "test":
            parser.add_class_arguments(Scoring, None)
            # The table of `TestResults` takes the place of Lightning's.
            parser.set_defaults(verbose=False)
        return parser

    def before_fit(self) -> None:
        """Refuse a checkpoint that does not fit before its run's records change."""
        if type(self.trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            self.trainer.strategy.checkpoint_io = WholeCheckpoints()
        path = self.config["fit"].get("ckpt_path")
        if path is None or not Path(path).is_file():
            return
        self.model.check_resumable(read_torch(Path(path), CheckpointError))
        if run := _resumed_run(path):
            _keep_metrics(run)

    def before_test(self) -> None:
        """Hand the options of `test` to the module."""
        config = self.config["test"]
        self.model.scoring = Scoring(config.align, config.flip_tta)

    def before_instantiate_classes(self) -> None:
        """Choose the run folder and put TensorBoard and CSV logs into it."""
        config = self.config[self.subcommand]
        if config.trainer.logger is not None or config.trainer.fast_dev_run:
            return
        if self.subcommand != "fit":
            config.trainer.logger = False
            return
        run = _resumed_run(config.get("ckpt_path")) or _new_run(
            Path(config.trainer.default_root_dir or ".") / RUNS,
            [Path(str(path)) for path in config.config or []],
        )
        place = {
            "save_dir": str(run.parent.parent),
            "name": run.parent.name,
            "version": int(run.name.removeprefix("version_")),
        }
        config.trainer.logger = [
            _spec(TensorBoardLogger, {**place, "default_hp_metric": False}),
            _spec(MetricsFile, place),
        ]

    def after_fit(self) -> None:
        """Say what the run came to, below the progress bar."""
        self._report(Summary)

    def after_test(self) -> None:
        """Print the result table, likewise."""
        self._report(TestResults)

    def _report(self, kind: type[Summary] | type[TestResults]) -> None:
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, kind):
                callback.report()


class SaveConfig(SaveConfigCallback):
    """The resolved configuration goes into a run folder, which only `fit` has.

    Not before the checkpoint of a resumed run has been found to fit: what is refused
    leaves the folder's records as they were.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        pass

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().setup(trainer, pl_module, "fit")


def _spec(kind: type, arguments: dict[str, object]) -> jsonargparse.Namespace:
    path = f"{kind.__module__}.{kind.__name__}"
    init_args = jsonargparse.Namespace(**arguments)  # type: ignore[no-untyped-call]
    return jsonargparse.Namespace(  # type: ignore[no-untyped-call]
        class_path=path, init_args=init_args
    )


def _default_precision() -> str:
    """bf16 autocast where the GPU has it in hardware, else true float32."""
    if torch.cuda.is_available() and torch.cuda.is_bf16_supported(
        including_emulation=False
    ):
        return "bf16-mixed"
    return "32-true"


def _new_run(runs: Path, configs: list[Path]) -> Path:
    """`<runs>/<names of the configs>/version_N`, N the first free number.

    The folder is taken by making it, or two runs that begin together would share it. Of
    several processes the first one alone writes, so the others' number is of no use.
    """
    folder = runs / ("-".join(config.stem for config in configs) or "fit")
    number = 0
    while True:
        run = folder / f"version_{number}"
        if getattr(rank_zero_only, "rank", 0) != 0:
            return run
        try:
            run.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return run


def _resumed_run(ckpt_path: object) -> Path | None:
    """The run folder that a checkpoint lies in."""
    if not isinstance(ckpt_path, str) or ckpt_path in ("best", "last", "hpc"):
        return None
    path = Path(ckpt_path)
    run = path.parent.parent
    if path.parent.name != "checkpoints" or not path.is_file():
        return None
    if not run.name.startswith("version_"):
        return None
    return run


@rank_zero_only
def _keep_metrics(run: Path) -> None:
    """Rename a resumed run's metrics.csv, which the CSV logger would start anew."""
    metrics, number = run / "metrics.csv", 1
    if metrics.exists():
        while (kept := run / f"metrics_{number}.csv").exists():
            number += 1
        metrics.rename(kept)


def run(args: ArgsType) -> None:
    """Run one command."""
    quiet()
    # Adapters are dataclasses with subclasses; jsonargparse takes such for closed.
    jsonargparse.set_parsing_settings(
        subclasses_enabled=[AdapterConfig], docstring_parse_attribute_docstrings=True
    )
    DepthCLI(
        DepthModule,
        DepthDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        parser_class=OneLineParser,
        save_config_callback=SaveConfig,
        save_config_kwargs={"overwrite": True},
        args=args,
    )
