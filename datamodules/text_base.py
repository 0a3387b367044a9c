"""The data module that all instructions share."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal, cast, get_args

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.errors import DataError
from datamodules.files.instructions import Instruction
from datamodules.loading import (
    EpochSampler,
    LengthSampler,
    RepeatingSampler,
    ResumableLoader,
)
from datamodules.prompts import PromptName
from datamodules.task_data import TaskDataModule
from datamodules.texts import (
    Collate,
    Cut,
    Encoder,
    OnLong,
    Question,
    TextBatch,
    Tokens,
    TokenSet,
    fitted,
)

Part = Literal["train", "val", "test"]


class TextDataModule(TaskDataModule):
    """Loaders over instructions (`Asks`); a data set's module says where they are.

    Args:
        prompt: `clean` has one prefix for training and scoring and keeps it out of the
            loss; `compatible` is the published whitespace, with all in the loss.
        cutoff: Tokens of a training row, at most.
        on_long: Longer rows are an `error`, left out (`skip`) or `cut`; both are
            counted. Null is an error for clean, and cut for compatible, as published.
        batch_size: Rows per process and step.
        group_by_length: Batches of rows of about one length, in random order.
        num_workers: Processes that make batches; 0 makes them in the main one.
        seed: Order of the training rows.
    """

    gives = "text"
    name: str
    notes: Sequence[str] = ()

    def __init__(
        self,
        prompt: PromptName,
        cutoff: int,
        on_long: OnLong | None,
        batch_size: int,
        group_by_length: bool,
        num_workers: int,
        seed: int,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        if prompt not in get_args(PromptName) or cutoff < 2:
            raise DataError(
                f"prompt {prompt!r} must be clean or compatible, and cutoff {cutoff} 2 "
                "or more"
            )
        self.prompt, self.cutoff, self.group = prompt, cutoff, group_by_length
        self.on_long: OnLong = on_long or ("error" if prompt == "clean" else "cut")
        self.cut: Cut | None = None
        """What the cutoff did to the training rows; None before they are read."""
        self.questions: dict[str, list[Question]] = {}
        self._rows: dict[Part, list[Tokens]] = {}

    def rows(self, part: Part) -> dict[str, list[Instruction]]:
        """Of a split, by task; "" where they are of none.

        Raises:
            DataError: If there are none.
        """
        raise NotImplementedError

    @property
    def missing(self) -> tuple[str, ...]:
        return ()

    def labels(self, task: str) -> tuple[str, ...]:
        asked = self.questions[task]
        return tuple(dict.fromkeys(o for one in asked for o in one.options))

    def about(self) -> dict[str, Any]:
        return {
            "prompt": self.prompt,
            "cutoff": self.cutoff,
            "prompt_in_loss": self.prompt == "compatible",
            **({} if self.cut is None else asdict(self.cut)),
        }

    def setup(self, stage: str) -> None:
        """Read and tokenise what a stage needs."""
        assert self.trainer is not None
        tokenizer: Any = self.trainer.lightning_module.tokenizer
        pad = tokenizer.pad_token_id
        self.collate_fn = Collate(
            self.prompt, tokenizer.eos_token_id if pad is None else pad
        )
        encoder = Encoder(tokenizer, self.prompt, self.cutoff)
        wanted: dict[str, tuple[Part, ...]] = {
            "fit": ("train", "val"),
            "validate": ("val",),
            "test": ("test",),
        }
        for part in wanted.get(stage, ()):
            rows = self.rows(part)
            make = self._asked if part == "test" else self._trained
            self._rows[part] = [
                item for task in rows for item in make(part, task, rows[task], encoder)
            ]
            self.check_count(part, len(self._rows[part]), "rows")

    @property
    def collate(self) -> Callable[[list[Tokens]], Any]:
        return self.collate_fn

    def transfer_batch_to_device(
        self, batch: TextBatch, device: torch.device, dataloader_idx: int
    ) -> TextBatch:
        # Lightning's own would take questions apart, token by token.
        moved = {n: t.to(device) for n, t in batch.items() if isinstance(t, Tensor)}
        return cast(TextBatch, {**batch, **moved})

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled batches; the last incomplete one is dropped if there is another."""
        rows = self._rows["train"]
        replicas, rank = self._replicas()
        if getattr(self.trainer, "overfit_batches", 0):
            sampler: EpochSampler = RepeatingSampler(TokenSet(rows), replicas, rank)
        elif self.group:
            lengths = [len(row.ids) for row in rows]
            size = self.batch_size
            sampler = LengthSampler(lengths, size, replicas, rank, self.seed)
        else:
            sampler = EpochSampler(TokenSet(rows), replicas, rank, seed=self.seed)
        return self.resumable(TokenSet(rows), sampler)

    def val_dataloader(self) -> DataLoader[Tokens]:
        """Every row once, in order."""
        return self.in_order(TokenSet(self._rows["val"]), self.batch_size)

    def test_dataloader(self) -> DataLoader[Tokens]:
        """Every row that has options once, in order."""
        return self.in_order(TokenSet(self._rows["test"]), self.batch_size)

    def _asked(
        self, part: Part, task: str, rows: Sequence[Instruction], encoder: Encoder
    ) -> list[Tokens]:
        """Rows that are scored.

        Raises:
            DataError: If one has no options.
        """
        asked = encoder.questions(task, rows)
        if len(asked) < len(rows):
            number = next(i for i, row in enumerate(rows, 1) if row.answer is None)
            raise DataError(
                f"{task}: row {number} has no options to score; end its instruction "
                'with "Answer format: a/b", or give it `options`'
            )
        self.questions[task] = asked
        prompts = [torch.tensor(one.prompt) for one in asked]
        return [Tokens(p, p, one) for p, one in zip(prompts, asked, strict=True)]

    def _trained(
        self, part: Part, task: str, rows: Sequence[Instruction], encoder: Encoder
    ) -> list[Tokens]:
        """Rows that are trained on, or whose loss is taken; with their questions."""
        items, cut = fitted(encoder.rows(rows), encoder, self.on_long, f"{part} rows")
        if cut.cut or cut.left_out:
            rank_zero_warn(
                f"{cut.cut} of {cut.rows} {part} rows are longer than data.cutoff "
                f"{self.cutoff}: their answers are cut off; {cut.left_out} more are "
                "left out"
            )
        if part == "train":
            self.cut = cut
            return [item for item in items if item is not None]
        asked = iter(encoder.questions(task, rows))
        each = [None if row.answer is None else next(asked) for row in rows]
        return [
            replace(item, question=one)
            for item, one in zip(items, each, strict=True)
            if item is not None
        ]
