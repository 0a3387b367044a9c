"""predict.py: open a model, hand it on, predict pictures; each where it is asked for.

What can be refused without torch is refused before it is imported.
"""

from app.errors import one_line_errors
from app.prediction.choice import Choice
from app.prediction.options import HandOver, Prediction, Source
from app.prediction.parser import parse
from datamodules.errors import DataError
from datamodules.files.pictures import check_exist
from models.artefacts.published.sources import check_source


@one_line_errors
def main(args: list[str] | None = None) -> None:
    """Run predict.py with `args` or the command line."""
    source, choice, hand_over, prediction = parse(args)
    if not prediction.images and not hand_over.wanted:
        raise DataError(
            "no photographs given; name image files or folders, or --export"
        )
    check_exist(prediction.images)
    check_source(source.model)
    run(source, choice, hand_over, prediction)


def run(
    source: Source, choice: Choice, hand_over: HandOver, prediction: Prediction
) -> None:
    """Open the model, hand it on if that is asked for, and predict every picture.

    Pictures that cannot be read are left out and named at the end, with exit code 1.
    """
    from app.prediction import several
    from app.prediction.model import OneNetwork, computed
    from app.prediction.pictures import predict
    from app.quiet import quiet
    from models.artefacts.engines import check_engine
    from models.artefacts.form import Asked
    from models.artefacts.opening import open_model

    quiet()
    if several.has_several(source, choice):
        several.run(source, choice, hand_over, prediction)
        return
    check_engine(prediction.engine)
    opened = open_model(source.model, Asked(source.network, source.base))
    if hand_over.wanted:
        from app.publishing.handing_on import hand_on

        size = opened.export_size(prediction.input_size)
        hand_on(opened, hand_over, size)
    if prediction.images:
        predict(OneNetwork(computed(opened.for_pictures(), prediction)), prediction)
