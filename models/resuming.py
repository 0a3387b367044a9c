"""Whether a checkpoint is one that a module can be scored by, or go on from."""

from collections.abc import Mapping
from typing import Any, TypeVar

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from datamodules.batch import ImageInput
from datamodules.sizes import Shrink
from models.adapters.state import differences
from models.artefacts.checkpoint import ADAPTERS, network_tensors
from models.artefacts.depth_record import DepthRecord
from models.artefacts.descriptions import check_version
from models.artefacts.files import KEY
from models.artefacts.record import Record
from models.artefacts.records import record_from
from models.errors import CheckpointError
from models.optimisation import PlainOptimisation

R = TypeVar("R", bound=Record[Any])
INSTEAD = "the configuration it was trained with, or start from it with model.weights"


def record_of(checkpoint: object, own: R) -> R:
    """The record of a checkpoint of the same base and network as one's own.

    Args:
        checkpoint: Content of a `.ckpt`.
        own: Of the module at hand.

    Raises:
        CheckpointError: If it is not one of ours, or of another base or network.
    """
    description = description_of(checkpoint)
    if ADAPTERS in description:
        raise CheckpointError(
            "the checkpoint is of a mixed run with the adapters "
            f"{', '.join(description[ADAPTERS])}; use the configuration it was "
            "trained with"
        )
    return check_same(record_from(description, "the checkpoint"), own)


def description_of(checkpoint: object) -> Mapping[str, Any]:
    """What a checkpoint says of itself.

    Raises:
        CheckpointError: If it is not one of ours.
    """
    if not isinstance(checkpoint, Mapping) or KEY not in checkpoint:
        raise CheckpointError(
            "the checkpoint was not written by this project's training"
        )
    description: Mapping[str, Any] = checkpoint[KEY]
    check_version(description, "the checkpoint")
    return description


def check_same(found: Record[Any], own: R) -> R:
    """Refuse a record of another base or network than one's own.

    Raises:
        CheckpointError: Naming both.
    """
    if isinstance(found, type(own)):
        found.check_base(own.base_sha256)
        if found.network == own.network:
            return found
    raise CheckpointError(
        f"the checkpoint is of {found.network}, but the configuration asks for "
        f"{own.network}; use the configuration it was trained with"
    )


def check_resumable(
    checkpoint: Mapping[str, Any],
    own: Record[Any],
    network: nn.Module,
    optimisation: PlainOptimisation,
) -> None:
    """Refuse to train on from a checkpoint that means something else.

    Raises:
        CheckpointError: Naming each option of the adapter that differs, each tensor
            that does not fit, and another kind of optimiser.
    """
    found = record_of(checkpoint, own)
    check_whole(checkpoint, optimisation.kind())
    if changes := differences(own.adapter, found.adapter):
        raise CheckpointError(
            f"the checkpoint's adapter is another one: {'; '.join(changes)}; use "
            f"{INSTEAD}"
        )
    own.check_tensors(network, network_tensors(checkpoint["state_dict"]))


def check_whole(checkpoint: Mapping[str, Any], now: Mapping[str, str]) -> None:
    """Refuse a checkpoint without the state of a training, or of another kind of one.

    Args:
        checkpoint: Content of a `.ckpt`.
        now: `PlainOptimisation.kind` of the configuration.

    Raises:
        CheckpointError: Naming what is missing, or both kinds.
    """
    if not {"optimizer_states", "loops"} <= checkpoint.keys():
        raise CheckpointError(
            "the checkpoint holds weights alone (save_weights_only), with which no run "
            "can be gone on with; start from it with model.weights"
        )
    before = checkpoint[KEY].get("training")
    if before is not None and before != now:
        raise CheckpointError(
            f"it was trained with {' and '.join(before.values())}, but the "
            f"configuration asks for {' and '.join(now.values())}; use {INSTEAD}"
        )


def image_shrink(trainer: Trainer) -> Shrink:
    """How the data at hand make larger pictures smaller."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    shown: ImageInput = getattr(data, "image_input", ImageInput())
    return shown.shrink


def check_shrink(found: DepthRecord, shrink: Shrink) -> None:
    """Say where pictures are made smaller by another rule than the checkpoint's."""
    if shrink != found.image_shrink:
        rank_zero_warn(
            f"the checkpoint was trained with image_shrink {found.image_shrink}; the "
            f"data have {shrink}"
        )


def steps_in_all(trainer: Trainer) -> int:
    """Steps of a resumed run: those taken, and those that are still to come.

    Where batches have another size than before, the epoch goes on at the sample at
    which it stopped, and Lightning is told how many of today's batches that is.
    """
    estimate = int(trainer.estimated_stepping_batches)
    if estimate == trainer.max_steps or not trainer.max_epochs:
        return estimate
    done = getattr(trainer.train_dataloader, "taken", 0)
    place = trainer.fit_loop.epoch_loop.batch_progress.current
    if done and place.ready != done:
        # Saved at a batch's end, it is ready and not yet completed.
        late = place.ready - place.completed
        place.ready, place.completed = done, done - late
    per_epoch = trainer.num_training_batches
    share = (trainer.current_epoch + done / per_epoch) / trainer.max_epochs
    return trainer.global_step + round(estimate * (1 - share))


def end_of_epoch(checkpoint: Mapping[str, Any]) -> None:
    """Let a checkpoint of an epoch's end begin the next one, in place.

    Most are written before Lightning counts the epoch as completed; where steps limit a
    run, it counts that epoch twice when it goes on, and the next one has the order of
    the one after it (seen in 2.6: `fit_loop.py`). Where it was counted, as at the end
    of training, Lightning takes the next epoch's batches for done.
    """
    loop: dict[str, Any] = checkpoint.get("loops", {}).get("fit_loop", {})
    epochs = loop.get("epoch_progress")
    if epochs is None or epochs["total"]["processed"] < epochs["total"]["started"]:
        return
    for counts in epochs.values():
        counts["completed"] = counts["processed"]
    for name, progress in loop.items():
        if name.startswith("epoch_loop.") and "current" in progress:
            progress["current"] = dict.fromkeys(progress["current"], 0)
    loop["epoch_loop.batch_progress"]["is_last_batch"] = False
