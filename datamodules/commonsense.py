"""The commonsense tasks of LLM-Adapters, and any instructions in files like theirs."""

from collections.abc import Sequence
from pathlib import Path

import torch

from datamodules.errors import DataError
from datamodules.files.instructions import Instruction, read_instructions
from datamodules.prompts import PromptName
from datamodules.text_base import Part, TextDataModule
from datamodules.texts import OnLong

ANSWERS = tuple(f"answer{i}" for i in range(1, 6))
TASKS: dict[str, tuple[str, ...]] = {
    "boolq": ("true", "false"),
    "piqa": ("solution1", "solution2"),
    "social_i_qa": ANSWERS,
    "hellaswag": ("ending1", "ending2", "ending3", "ending4"),
    "winogrande": ("option1", "option2"),
    "ARC-Easy": ANSWERS,
    "ARC-Challenge": ANSWERS,
    "openbookqa": ANSWERS,
}
"""Labels that an answer is looked for by, as in LLM-Adapters' evaluation."""
FOLDERS = ("", "dataset", "ft-training_set")
"""Where its repository keeps them."""
ENDINGS = (".json", ".jsonl")


class CommonsenseDataModule(TextDataModule):
    """A training file, and a folder for each task that is tested.

    Args:
        root: Folder with `TASK/test.json` and the training file, or LLM-Adapters'
            repository. JSON lists, or JSON lines (`.jsonl`).
        train: The training file or files: paths, or names below root.
        tasks: Folders that are tested; own ones, too.
        n_val: Training rows that are held out for validation, as published.
        prompt: As in `TextDataModule`, and so are all that follow.
        cutoff: Tokens of a training row, at most.
        on_long: What becomes of longer ones.
        batch_size: Rows per process and step.
        group_by_length: Batches of rows of about one length.
        num_workers: Processes that make batches.
        seed: Order of the training rows, and which are held out.
    """

    name = "commonsense"

    def __init__(
        self,
        root: str,
        train: str | list[str] = "commonsense_170k.json",
        tasks: list[str] = list(TASKS),  # noqa: B006 - not changed
        n_val: int = 120,
        prompt: PromptName = "clean",
        cutoff: int = 256,
        on_long: OnLong | None = None,
        batch_size: int = 16,
        group_by_length: bool = True,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            prompt, cutoff, on_long, batch_size, group_by_length, num_workers, seed
        )
        if not tasks or n_val < 1:
            raise DataError(f"tasks {tasks} and n_val {n_val} must not be empty or 0")
        self.root, self.wanted, self.n_val = Path(root).expanduser(), tasks, n_val
        self.train = [train] if isinstance(train, str) else train
        self._read: dict[Path, list[Instruction]] = {}

    def rows(self, part: Part) -> dict[str, list[Instruction]]:
        if part == "test":
            found = {task: self._test_file(task) for task in self.wanted}
            there = {task: path for task, path in found.items() if path is not None}
            if not there:
                raise DataError(
                    f"{self.root} has none of {', '.join(self.wanted)}; give a folder "
                    "with TASK/test.json for each task"
                )
            return {task: self._rows_of(path) for task, path in there.items()}
        files = [self._train_file(name) for name in self.train]
        rows = [row for path in files for row in self._rows_of(path)]
        if len(rows) <= self.n_val:
            raise DataError(
                f"{len(rows)} training rows are too few to hold out data.n_val "
                f"{self.n_val}; give a smaller one"
            )
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(rows), generator=generator).tolist()
        held_out = sorted(order[: self.n_val])
        kept = sorted(order[self.n_val :])
        return {"": [rows[i] for i in (held_out if part == "val" else kept)]}

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(task for task in self.wanted if self._test_file(task) is None)

    def labels(self, task: str) -> tuple[str, ...]:
        return TASKS.get(task) or super().labels(task)

    def _rows_of(self, path: Path) -> list[Instruction]:
        if path not in self._read:
            self._read[path] = read_instructions(path)
        return self._read[path]

    def _test_file(self, task: str) -> Path | None:
        """None for a known task that is not there.

        Raises:
            DataError: For a folder that is neither there nor known.
        """
        found = self._first([f"{task}/test{end}" for end in ENDINGS])
        if found is None and task not in TASKS:
            raise DataError(
                f"data.tasks: {self.root} has no {task}/test.json, and {task} is none "
                f"of {', '.join(TASKS)}"
            )
        return found

    def _train_file(self, name: str) -> Path:
        path = Path(name).expanduser()
        found = path if path.is_file() else self._first([name])
        if found is None:
            raise DataError(
                f"data.train: there is no {name} in {self.root}; give the path of a "
                "JSON list or of JSON lines"
            )
        return found

    def _first(self, names: Sequence[str]) -> Path | None:
        paths = (self.root / folder / name for folder in FOLDERS for name in names)
        return next((path for path in paths if path.is_file()), None)
