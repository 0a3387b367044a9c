"""Training of any network, whatever its task: steps, checkpoints, what it says."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from models.adapters import is_never_trained, orthogonality
from models.adapters.state import differences
from models.artefacts.checkpoint import network_tensors
from models.artefacts.files import KEY
from models.artefacts.record import Record
from models.optimisation import (
    OneCycle,
    PlainOptimisation,
    Regime,
    give_rates,
    scaled,
)
from models.resuming import (
    check_resumable,
    end_of_epoch,
    record_of,
    steps_in_all,
)
from models.soundness import check_precision, check_weights, steps_of

AVERAGED = "current_model_state"
"""Where Lightning's weight averaging puts the weights that are not averaged; it wants
whole state dicts back."""
STATES = {"state_dict", AVERAGED}
Row = dict[str, Any]
"""Name of a metric to its value: a number, or None where there is none."""


@dataclass(frozen=True)
class Told:
    """What scores came to, for people and for files."""

    heading: str
    """Above the table: by which rules, of how much."""
    rows: Mapping[str, Row]
    """Of the table, by label; the metrics of the first are the columns."""
    content: Mapping[str, Any]
    """For JSON."""
    notes: list[str] = field(default_factory=list)
    """Below the table."""
    name: str = ""
    """Of the rules, in a file's name."""
    counted: int = 0
    """How many items were looked at."""
    unit: str = "items"
    each: Sequence[Row] = ()
    """Scores of single items, where they were asked for; all have the same columns."""


class TaskModule(LightningModule):
    """A network in training; subclasses say of which task.

    Checkpoints hold what was trained and how the base is identified, never the frozen
    base itself.

    Args:
        network: With its adapters in place.
        record: How to rebuild it.
        optimisation: Rates, schedule, optimiser.
    """

    takes: ClassVar[str]
    """What the batches of its data are of (`TaskDataModule.gives`)."""
    monitor: ClassVar[tuple[str, str]]
    """By which score the best checkpoint is chosen, and whether by its min or max."""
    rises: ClassVar[frozenset[str]]
    """Scores of which more is better, by the last part of their names."""
    scoring_kind: ClassVar[type]
    """Dataclass of the options of `test`."""
    scoring: Any
    """One of these."""
    before_too: ClassVar[str | None] = None
    """Label of one more row of scores, of the beginning alone (`rows_before`)."""

    def __init__(
        self, network: nn.Module, record: Record[Any], optimisation: PlainOptimisation
    ) -> None:
        super().__init__()
        # Checkpoints lack the frozen base; `on_load_checkpoint` checks what is there.
        self.strict_loading = False
        self.network = network
        self.record = record
        self.optimisation = optimisation
        self.regime: Regime = optimisation
        """What is the optimiser's and its rates'."""
        self._found_lr: float | None = None
        self.scores = record.scores
        self.scoring = self.scoring_kind()
        for name, parameter in network.named_parameters():
            if is_never_trained(network, name):
                parameter.requires_grad_(False)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of what is scored apart; "" of the only one."""
        return ("",)

    def setup(self, stage: str) -> None:
        check_precision(self.trainer)

    def penalty(self, batch_size: int) -> Tensor | None:
        """What the adapters add to the loss, logged; None where they add nothing."""
        if self.record.adapter is None:
            return None
        penalty = orthogonality(self.network, self.record.adapter)
        if penalty is not None:
            self.log("train/orthogonality", penalty.detach(), batch_size=batch_size)
        return penalty

    @property
    def lr(self) -> float:
        """The largest peak rate: what Lightning's `LearningRateFinder` looks for.

        Set to what it found, all rates are scaled alike.
        """
        return max(rate.lr for rate in self.regime.rates().values())

    @lr.setter
    def lr(self, found: float) -> None:
        self._found_lr = found

    def on_train_start(self) -> None:
        """Rates follow this run's options, or what was found for it."""
        if self.trainer.ckpt_path is None and self._found_lr is None:
            return
        (optimizer,) = self.trainer.optimizers
        schedules = [each.scheduler for each in self.trainer.lr_scheduler_configs]
        schedule = schedules[0] if schedules else None
        if not isinstance(schedule, OneCycle):
            return  # Lightning's weight averaging took the rates over
        schedule.steps = steps_in_all(self.trainer)
        if self._found_lr is not None:
            rates = scaled(self.regime.rates(), optimizer, self._found_lr)
            names = [group["name"] for group in optimizer.param_groups]
            told = {f"{n.removesuffix('_flat')}_lr {rates[n].lr:g}" for n in names}
            rank_zero_info(f"peak rates that were found: {', '.join(sorted(told))}")
            give_rates(rates, optimizer, schedule)
        elif changes := self.regime.apply(optimizer, schedule):
            rank_zero_info(
                f"resumed at step {schedule.last_epoch} with {'; '.join(changes)}: "
                "rates follow one cycle over all steps from where it stands"
            )

    def on_train_epoch_end(self) -> None:
        check_weights(self.trained_parameters(), self.trainer.global_step)

    def configure_optimizers(self) -> Any:
        steps = steps_of(self.trainer)
        optimizer, schedule = self.optimisation.make(self.network, steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for part in STATES & checkpoint.keys():
            state = checkpoint[part]
            checkpoint[part] = {key: state[key] for key in self.saved_keys()}
        checkpoint[KEY] = {
            **self.description(),
            "training": self.regime.kind(),
        }

    def saved_keys(self) -> list[str]:
        """Keys of the state dict that checkpoints have: what the base does not give."""
        return [f"network.{name}" for name in self.record.saved_names(self.network)]

    def description(self) -> dict[str, Any]:
        """What checkpoints say of what they hold, in plain types."""
        return replace(self.record, scores=self.scores).to_dict()

    def record_of(self, source: str = "") -> Record[Any]:
        """What is said of the network, or of a source's adapter."""
        return self.record

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Those that are or may be trained, and others beside them, by name."""
        return self.network.named_parameters()

    def counts(self) -> tuple[int, int]:
        """Numbers of trainable and of all parameters."""
        trained = {p for _, p in self.trained_parameters() if p.requires_grad}
        whole = {*self.network.parameters(), *trained}
        return sum(p.numel() for p in trained), sum(p.numel() for p in whole)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        found = record_of(checkpoint, self.record)
        self.note_record(found)
        if self.trainer.state.fn == TrainerFn.FITTING:
            self.check_resumable(checkpoint)
            end_of_epoch(checkpoint)
            if AVERAGED in checkpoint:
                whole = self.state_dict()
                checkpoint |= {part: whole | checkpoint[part] for part in STATES}
            return
        if changes := differences(self.record.adapter, found.adapter):
            # Its own adapter alone gives its tensors a meaning.
            changed = "; ".join(changes)
            rank_zero_warn(f"the checkpoint's own adapter is used: {changed}")
            self.network, self.record = found.adapted(), found
        tensors = network_tensors(checkpoint["state_dict"])
        self.record.check_tensors(self.network, tensors)

    def note_record(self, found: Record[Any]) -> None:
        """Take over what a checkpoint says beside its tensors."""
        self.scores = found.scores

    def check_resumable(self, checkpoint: Mapping[str, Any]) -> None:
        """Refuse to train on from a checkpoint that means something else.

        Raises:
            CheckpointError: Naming what differs.
        """
        check_resumable(checkpoint, self.record, self.network, self.optimisation)

    def rows_before(self) -> dict[str, Row]:
        """Of the validation before the first step, the row that `before_too` names."""
        return {}

    @abstractmethod
    def row(self, stage: str, source: str = "") -> Row:
        """A stage's scores, as they were logged; empty without any."""

    @abstractmethod
    def told(self, rows: Mapping[str, Row], source: str) -> Told:
        """What validation came to.

        Args:
            rows: By label.
            source: Of which of the `sources`.
        """

    @abstractmethod
    def tested(self, source: str) -> Told:
        """What a test came to, of one of the `sources`."""

    @abstractmethod
    def next_command(self, checkpoint: str) -> str:
        """What to do with a checkpoint, as it is typed."""
