"""Several adapters of one network: open them, hand them on, predict with them."""

from pathlib import Path

from app.prediction.bank_model import BankModel
from app.prediction.choice import Choice, read_table
from app.prediction.model import no_engine
from app.prediction.options import HandOver, Prediction, Source
from app.prediction.pictures import predict
from datamodules.errors import DataError
from models.artefacts.mixed import (
    Several,
    is_mixed,
    read_mixed,
    read_several,
    stored_router,
)
from models.errors import CheckpointError, ExportError
from models.router import router_of


def has_several(source: Source, choice: Choice) -> bool:
    """Whether a user means several adapters of one network.

    Raises:
        DataError: If adapters are chosen among, and there are none.
    """
    if choice.adapters is not None or is_mixed(Path(source.model).expanduser()):
        return True
    if choice.made:
        raise DataError(
            f"--adapter, --adapter-of and --route choose among several adapters, and "
            f"{source.model} is one network; give --adapters DIR, or the checkpoint of "
            "a mixed run"
        )
    return False


def run(
    source: Source, choice: Choice, hand_over: HandOver, prediction: Prediction
) -> None:
    """Hand adapters on, if that is asked for, and predict every picture.

    Raises:
        UserError: Saying what does not go together.
    """
    several = opened(source, choice, prediction)
    names = ", ".join(several.adapters)
    base = None if choice.adapters is None else source.model
    if prediction.images and not choice.made:
        raise DataError(
            f"{several.source} has the adapters {names}; say which with --adapter "
            "NAME, --adapter-of CSV or --route"
        )
    if hand_over.wanted:
        _hand_on(several, base, choice, hand_over, prediction)
    if prediction.images:
        predict(BankModel(source.model, several, choice, base), prediction)


def _hand_on(
    several: Several,
    base: str | None,
    choice: Choice,
    wanted: HandOver,
    prediction: Prediction,
) -> None:
    # Lightning comes with it, for which predictions do not wait.
    from app.publishing.handing_on import hand_on, hand_on_several

    if choice.adapter is not None:
        opened = several.one(choice.adapter, base)
        size = prediction.input_size(opened.image_size, opened.network.patch_px)
        hand_on(opened, wanted, size)
        return
    if (
        wanted.export_format != "adapter"
        or wanted.push_to_hub is not None
        or base is not None
    ):
        what = "--push-to-hub" if wanted.push_to_hub else f"--export {wanted.export}"
        raise ExportError(
            f"{what} is of one network, and {several.source} has the adapters "
            f"{', '.join(several.adapters)}; name one with --adapter (--export-format "
            "adapter writes all of a mixed run)"
        )
    assert wanted.export is not None
    router = None if several.router is None else router_of(several.router)
    hand_on_several(several, Path(wanted.export).expanduser(), router)


def opened(source: Source, choice: Choice, prediction: Prediction) -> Several:
    """The adapters that are chosen among; of a folder no others are read.

    Raises:
        UserError: Saying what does not go together, or cannot be opened.
    """
    model = source.model
    if source.network is not None or source.base is not None:
        raise DataError(
            "--network and --base are for one model; adapters say themselves which "
            "network they are for"
        )
    no_engine(prediction)
    if choice.adapters is None:
        return read_mixed(Path(model).expanduser())
    if is_mixed(Path(model).expanduser()):
        raise CheckpointError(
            f"--model {model} has adapters of its own; leave --adapters out, or give "
            "the base"
        )
    folder = Path(choice.adapters).expanduser()
    wanted: list[str] | None = None
    if choice.adapter is not None:
        wanted = [choice.adapter]
    elif choice.adapter_of is not None:
        wanted = read_table(Path(choice.adapter_of)).names
        if not wanted:
            raise DataError(
                f"{choice.adapter_of} names no adapter; predict with --model alone"
            )
    elif choice.route and (stored := stored_router(folder)) is not None:
        wanted = list(router_of(stored).names)
    return read_several(folder, wanted)
