"""Write a trained network in a form for others, and publish it; by one process."""

import tempfile
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from app.prediction.options import HandOver
from app.publishing.hub import Publication, check, publish, recorded_results
from datamodules.files.whole import whole_folder
from datamodules.sizes import InputSize
from models.artefacts import form_named
from models.artefacts.form import (
    ExportOptions,
    OpenedModel,
    check_free,
    largest,
    save,
)
from models.artefacts.mixed import ROUTER_FILE, Several
from models.router import Router


@rank_zero_only
def hand_on(opened: OpenedModel, wanted: HandOver, size: InputSize) -> None:
    """Export a network, and publish the export if that is asked for.

    Args:
        opened: What to hand on.
        wanted: Where to and in which form.
        size: The input that predictions are made at, and that the form says.

    Raises:
        ExportError: If the form cannot hold it, or the Hub does not take it.
    """
    if wanted.push_to_hub is None:
        assert wanted.export is not None
        _export(opened, wanted, size, Path(wanted.export).expanduser())
        return
    publication = Publication(
        wanted.push_to_hub, wanted.private, _form(opened, wanted), wanted.license
    )
    about = opened.about
    licence = check(publication, about)
    trained = None
    if opened.record is not None:
        # Before adapters are folded in.
        parameters = opened.network.parameters()
        trained = sum(p.numel() for p in parameters if p.requires_grad)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(wanted.export or f"{scratch}/model").expanduser()
        _export(opened, wanted, size, folder)
        results = recorded_results(opened.source)
        address = publish(folder, publication, about, licence, results, trained)
    print(f"published: {address}")


@rank_zero_only
def hand_on_several(several: Several, folder: Path, router: Router | None) -> None:
    """Write adapters of one base as a folder of adapter folders, with their router.

    Args:
        several: Which.
        folder: Must not exist, or be empty. It appears whole or not at all.
        router: None if there is none.

    Raises:
        ExportError: If the folder is taken, or one is not the same when reloaded.
    """
    check_free(folder)
    form, each = form_named("adapter"), []
    with whole_folder(folder) as new:
        for name in several.adapters:
            opened = several.one(name)
            assert opened.image_size is not None
            options = ExportOptions(opened.image_size)
            each.append(save(form, opened, new / name, options))
        if router is not None:
            router.save(new / ROUTER_FILE)
    beside = "" if router is None else " and their router"
    print(
        f"adapters {', '.join(several.adapters)}{beside}: {folder}; reloaded, they "
        f"differ by at most {largest(each):.1e} (relative)"
    )


def _form(opened: OpenedModel, wanted: HandOver) -> str:
    """The form that is asked for, or the usual one of such a model."""
    return wanted.export_format or next(iter(opened.forms))


def _export(
    opened: OpenedModel, wanted: HandOver, size: InputSize, folder: Path
) -> None:
    form = form_named(_form(opened, wanted), opened.forms)
    options = ExportOptions(size, wanted.export_half, wanted.export_base)
    worst = save(form, opened, folder, options)
    what = "merged network" if form.folds_in else "adapter"
    print(
        f"{what} ({form.name}): {folder}; reloaded, it differs by at most {worst:.1e} "
        "(relative)"
    )
