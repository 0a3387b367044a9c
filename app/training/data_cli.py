"""Commands that take any recipe, of which the data are made alone."""

import jsonargparse

from app.training.cli import TaskCLI
from app.training.parser import OneLineParser
from datamodules.task_data import TaskDataModule


class DataCLI(TaskCLI):
    """Takes the options of `fit`; no weights are read, and no run folder is made."""

    def before_instantiate_classes(self) -> None:
        pass

    def instantiate_classes(self) -> None:
        parser = OneLineParser()
        parser.add_subclass_arguments(TaskDataModule, "data")
        config = jsonargparse.Namespace(data=self.config.data)  # type: ignore[no-untyped-call]
        self.datamodule: TaskDataModule = parser.instantiate(config).data
