"""The command line of train.py: fit, validate and test."""

from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, ClassVar

import jsonargparse
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import (
    LightningArgumentParser,
    LightningCLI,
)
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info

from app.training import folder, options
from app.training.checkpoint_files import WholeCheckpoints
from app.training.checkpoints import Recovery
from app.training.data_check import DataCheck
from app.training.metrics_file import MetricsFile
from app.training.monitors import Monitors
from app.training.previews import Previews
from app.training.rates import RateFinder
from app.training.results import Summary, TestResults
from datamodules.mixed import MixedDataModule
from datamodules.task_data import TaskDataModule
from models.artefacts.files import read_torch
from models.errors import CheckpointError, OptionError
from models.scoring import SCORINGS
from models.task_module import TaskModule


class TaskCLI(LightningCLI):
    """LightningCLI with this project's links, callbacks and run folder.

    A run writes everything into `runs/<config name>/version_N/` (below
    `--trainer.default_root_dir` if that is given); a run that resumes from a
    checkpoint goes on in that checkpoint's own folder.
    """

    command: ClassVar[str] = "fit"
    """The one that was asked for: each takes half a second to describe."""
    _run: Path | None = None
    """Folder of the run, for `fit`."""
    _new_run: Path | None = None
    """The same where it is one that begins."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(*args, **kwargs)
        except BaseException:
            if self._new_run is not None:
                folder.give_back(self._new_run)
            raise

    @classmethod
    def subcommands(cls) -> dict[str, set[str]]:
        return {cls.command: LightningCLI.subcommands()[cls.command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name in ("max_depth", "image_size"):
            parser.link_arguments(
                "data",
                f"model.init_args.{name}",
                compute_fn=partial(_of_each, name),
                apply_on="instantiate",
            )
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(Recovery, "recovery")
        parser.add_lightning_class_args(DataCheck, "data_check")
        parser.add_lightning_class_args(RateFinder, "rate_finder")
        parser.add_lightning_class_args(Previews, "previews")
        parser.add_lightning_class_args(Monitors, "monitors")
        parser.add_lightning_class_args(Summary, "summary")
        parser.add_lightning_class_args(TestResults, "results")
        parser.add_lightning_class_args(LearningRateMonitor, "learning_rate")
        parser.set_defaults(
            {
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
            for kind in SCORINGS:
                parser.add_class_arguments(kind, None)
            # The table of `TestResults` takes the place of Lightning's.
            parser.set_defaults(verbose=False)
        return parser

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Tell callbacks the run's folder, and write checkpoints whole."""
        trainer = super().instantiate_trainer(**kwargs)
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        for callback in callbacks:
            if isinstance(callback, folder.RunCallback):
                callback.folder = self._run
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeCheckpoints()
        return trainer

    def _instantiate_trainer(
        self, config: dict[str, Any], callbacks: list[Callback]
    ) -> Trainer:
        """Leave out what has no place under the trainer's own options."""
        unwanted: list[type[Callback]] = []
        if config.get("enable_checkpointing") is False:
            unwanted.append(ModelCheckpoint)
        if config.get("logger") is False:
            unwanted.append(LearningRateMonitor)
        wanted = [c for c in callbacks if not isinstance(c, tuple(unwanted))]
        trainer: Trainer = super()._instantiate_trainer(config, wanted)
        return trainer

    def fit(self, **kwargs: Any) -> None:
        """Train, unless a checkpoint has done all that is asked for."""
        checkpoint = self._checkpoint()
        if checkpoint is not None:
            self._check_resumable(checkpoint)
            if line := self._nothing_left(checkpoint):
                print(line)
                return
            for line in options.resumed(self._options(), checkpoint):
                rank_zero_info(line)
        with folder.records_kept(folder.run_of(self.config["fit"].ckpt_path)):
            self.trainer.fit(**kwargs)

    def before_validate(self) -> None:
        """Say what is scored otherwise than it was trained."""
        name = "test" if self.subcommand == "test" else "val"
        if getattr(self.trainer, f"limit_{name}_batches") == 0:
            raise OptionError(
                f"--trainer.limit_{name}_batches 0 leaves nothing to score"
            )
        if (checkpoint := self._checkpoint()) is not None:
            for line in options.scored(self._options(), checkpoint):
                rank_zero_info(line)

    def before_test(self) -> None:
        """Hand the options of `test` to the module."""
        self.before_validate()
        self.model.scoring = _scoring(self.config["test"], type(self.model))

    def _checkpoint(self) -> Mapping[str, Any] | None:
        """What is in the file that --ckpt_path names; None without one."""
        path = self.config[self.subcommand].get("ckpt_path")
        if path is None or not Path(path).is_file():
            return None
        content = read_torch(Path(path), CheckpointError)
        return content if isinstance(content, Mapping) else {}

    def _check_resumable(self, checkpoint: Mapping[str, Any]) -> None:
        """Refuse a checkpoint that does not fit, naming the options that differ."""
        try:
            self.model.check_resumable(checkpoint)
        except CheckpointError as error:
            told = options.resumed(self._options(), checkpoint)
            raise CheckpointError("; ".join([str(error), *told])) from None

    def _nothing_left(self, checkpoint: Mapping[str, Any]) -> str | None:
        """Why a run that goes on would have nothing to do; None if it has.

        Raises:
            CheckpointError: If fewer epochs are asked for than it has done.
        """
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
        done, steps = progress["processed"], checkpoint["global_step"]
        epochs, limit = self.trainer.max_epochs, self.trainer.max_steps
        if epochs is not None and 0 <= epochs < done:
            raise CheckpointError(
                f"the checkpoint has done {done} epochs, more than "
                f"--trainer.max_epochs {epochs}; give {done + 1} or more to go on, or "
                "leave --ckpt_path out to begin anew"
            )
        path = self.config["fit"].ckpt_path
        for reached, name, all_ in (
            (0 <= limit <= steps, "max_steps", f"{limit} steps"),
            (done == epochs, "max_epochs", f"{done} epochs, {steps} steps"),
        ):
            if reached:
                return (
                    f"{path} has done all {all_}: nothing is left; give more "
                    f"--trainer.{name} to go on"
                )
        return None

    def _options(self) -> options.Options:
        """Of this command."""
        return options.flat(self._parser(self.subcommand), self.config[self.subcommand])

    def before_instantiate_classes(self) -> None:
        """Choose the run folder and put checkpoints and logs into it."""
        config = self.config[self.subcommand]
        model = _check_together(config)
        if config.checkpoint.monitor is None:
            config.checkpoint.monitor, config.checkpoint.mode = model.monitor
        elif config.checkpoint.monitor.rpartition("/")[2] in model.rises:
            config.checkpoint.mode = "max"
        if (root := config.trainer.default_root_dir) is not None:
            config.trainer.default_root_dir = str(Path(root).expanduser())
        runs = folder.runs_of(config)
        if (wanted := config.get("ckpt_path")) in ("last", "best"):
            needed = self.subcommand != "fit"
            config.ckpt_path = folder.newest(runs, wanted, needed=needed)
        if self.subcommand != "fit":
            config.trainer.logger = config.trainer.logger or False
            return
        if config.trainer.fast_dev_run:
            # Lightning writes this one all the same, seen in 2.6.
            config.checkpoint.save_last = False
            return
        run = folder.run_of(config.get("ckpt_path"))
        if run is None:
            run = self._new_run = folder.new_run(runs)
        self._run = run
        for name in ("checkpoint", "recovery"):
            own = config[name].get("dirpath")
            config[name].dirpath = own or str(run / folder.CHECKPOINTS)
        if config.trainer.logger not in (None, True):
            return
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


def _of_each(name: str, data: TaskDataModule) -> Any:
    """An attribute of the data, or of each of their sources by name."""
    if isinstance(data, MixedDataModule):
        return {part: getattr(source, name) for part, source in data.parts.items()}
    # The link goes nowhere where a module does not take it.
    return getattr(data, name, None)


def _scoring(config: jsonargparse.Namespace, model: type[TaskModule]) -> Any:
    """The options of `test` that are a module's own.

    Raises:
        OptionError: If one of another kind of module was given.
    """
    for kind in SCORINGS:
        for option in fields(kind):
            given = getattr(config, option.name)
            if kind is not model.scoring_kind and given != option.default:
                raise OptionError(
                    f"--{option.name} {given} is not for {model.__name__}; of test it "
                    f"takes {', '.join(_names(model.scoring_kind))}"
                )
    own = _names(model.scoring_kind)
    return model.scoring_kind(*(getattr(config, name) for name in own))


def _names(kind: Any) -> list[str]:
    return [option.name for option in fields(kind)]


def _check_together(config: jsonargparse.Namespace) -> type[TaskModule]:
    """Refuse a module whose batches the data do not have; returns its class.

    Raises:
        OptionError: Naming both.
    """
    model: type[TaskModule] = resolve_name(config.model.class_path)
    data: type[TaskDataModule] = resolve_name(config.data.class_path)
    if model.takes != data.gives:
        raise OptionError(
            f"{config.model.class_path} and {config.data.class_path} do not go "
            f"together: the first takes {model.takes}, the second has {data.gives}"
        )
    return model


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
