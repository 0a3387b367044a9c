"""predict.py: pictures in, depth out; a trained network handed on."""

import signal
import tempfile
from pathlib import Path

from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from app.errors import fail, one_line_errors
from app.prediction.ledger import Ledger
from app.prediction.options import LOWER_BOUND, Options, parser
from app.prediction.predictor import Predictor, collate
from app.prediction.writer import Camera, DepthWriter
from app.publishing.hub import Publication, check, publish, recorded_results
from app.training.cli import quiet
from datamodules.batch import DataError
from datamodules.photographs import (
    InputSize,
    Photograph,
    Photographs,
    Picture,
    ShapeBatches,
    find_images,
    header,
    input_size,
)
from models.artefacts.exports import ExportError, save_merged
from models.artefacts.opening import Opened, merged, open_model
from models.artefacts.peft.adapters import save_peft

METRES = ("png", "ply", "color")
"""Formats that mean metres."""
BATCH_PIXELS = 8 * 518 * 686
"""Input pixels in a batch, at most: larger pictures come in smaller batches."""


class Pictures(LightningDataModule):
    """The pictures that are still to be done, each process its share."""

    def __init__(
        self,
        pictures: list[Picture],
        shapes: list[tuple[int, int]],
        options: Options,
    ) -> None:
        super().__init__()
        self.pictures, self.shapes, self.options = pictures, shapes, options

    def predict_dataloader(self) -> DataLoader[Photograph]:
        assert self.trainer is not None
        place = (self.trainer.world_size, self.trainer.global_rank)
        size = self.options.batch_size
        return DataLoader(
            Photographs(
                self.pictures, self.shapes, keep_pixels="ply" in self.options.formats
            ),
            batch_sampler=ShapeBatches(self.shapes, size, BATCH_PIXELS, *place),
            num_workers=min(self.options.workers, len(self.pictures)),
            collate_fn=collate,
        )


def run(options: Options) -> None:
    """Export or publish the model if that is asked for, and predict every picture.

    Pictures that cannot be read are left out and named at the end, with exit code 1.
    """
    hands_on = options.export is not None or options.push_to_hub is not None
    if not options.images and not hands_on:
        raise DataError(
            "no photographs given; name image files or folders, or --export"
        )
    opened = open_model(options.model, options.network)
    trained = sum(p.numel() for p in opened.network.parameters() if p.requires_grad)
    if options.push_to_hub is not None:
        push(opened, options, trained)
    elif options.export is not None:
        export(opened, options, Path(options.export))
    if options.images:
        predict(opened, options)


def push(opened: Opened, options: Options, trained: int) -> None:
    """Export into a folder, `--export`'s or a passing one, and publish it."""
    assert options.push_to_hub is not None
    publication = Publication(
        options.push_to_hub, options.private, options.export_format, options.license
    )
    licence = check(publication, opened.record)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(options.export or f"{scratch}/model")
        export(opened, options, folder)
        results = recorded_results(options.model)
        address = publish(folder, publication, opened.record, licence, results, trained)
    print(f"published: {address}")


def export(opened: Opened, options: Options, folder: Path) -> None:
    """Hand the network on in the form that was asked for."""
    record = opened.record
    if options.export_format == "peft":
        if record is None or record.adapter is None:
            raise ExportError(f"{options.model} has no adapter to write as PEFT's")
        save_peft(opened.network, record.adapter, folder, options.export_base)
        print(f"PEFT folder: {folder}")
        return
    size = opened.image_size or (LOWER_BOUND, LOWER_BOUND)
    worst = save_merged(
        merged(opened),
        folder,
        options.export_format,
        image_size=size,
        notes=opened.notes(),
        half=options.export_half,
    )
    print(
        f"merged network ({options.export_format}): {folder}; reloaded, it differs by "
        f"at most {worst:.1e} (relative)"
    )


def predict(opened: Opened, options: Options) -> None:
    """Predict depth for every picture, then say how to read the files."""
    pictures = find_images(options.images)
    spec = opened.network.spec
    if spec.kind == "relative" and set(METRES) & set(options.formats):
        raise DataError(
            "the network is relative: it predicts disparity without a unit, for which "
            f"{', '.join(METRES)} have no meaning; use --formats npy, pfm or exr"
        )
    max_depth = spec.max_depth or 1.0
    scale = options.scale(max_depth) if "png" in options.formats else 0
    wanted = options.input_size(opened.image_size)
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)

    trainer = Trainer(
        accelerator=options.accelerator,
        devices=options.devices,
        precision=options.precision,
        logger=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
    )
    about: dict[str, object] = {
        "model": options.model,
        "kind": spec.kind,
        "max_depth": spec.max_depth,
        "png_units_per_metre": scale or None,
        "input_size": list(wanted) if isinstance(wanted, tuple) else wanted,
        "tta": options.tta,
        "tile": options.tile,
    }
    ledger = Ledger(folder, about, trainer.global_rank, trainer.world_size)
    done = set() if options.overwrite else ledger.done(options.formats)
    left = [picture for picture in pictures if picture.name not in done]
    if done:
        print(f"{len(pictures) - len(left)} of {len(pictures)} are there already")
    if left:
        headers = [header(p.path) if p.frame is None else (None, None) for p in left]
        tiles = wanted if options.tile else None
        shapes = [_shape(size, "native" if tiles else wanted) for size, _ in headers]
        writer = DepthWriter(
            folder,
            left,
            [focal_px for _, focal_px in headers],
            options.formats,
            max_depth,
            scale,
            options.colormap,
            Camera(options.fx, options.fy, options.cx, options.cy, options.fov),
            ledger,
        )
        trainer.callbacks.append(writer)  # type: ignore[attr-defined]
        tile = None if tiles is None else _tile_size(tiles)
        model = Predictor(merged(opened), tta=options.tta, tile=tile)
        before = signal.signal(signal.SIGTERM, _stop)
        try:
            trainer.predict(
                model, Pictures(left, shapes, options), return_predictions=False
            )
        finally:
            writer.finish()
            signal.signal(signal.SIGTERM, before)
    trainer.strategy.barrier()
    if trainer.is_global_zero:
        ledger.merge()
        _report(ledger, {picture.name for picture in pictures}, options, scale)


def _shape(size: tuple[int, int] | None, wanted: InputSize) -> tuple[int, int]:
    """Network input of a picture; of one that cannot be read it does not matter."""
    if size is None:
        return wanted if isinstance(wanted, tuple) else (LOWER_BOUND, LOWER_BOUND)
    return input_size(size, wanted)


def _tile_size(wanted: InputSize) -> tuple[int, int]:
    if isinstance(wanted, tuple):
        return wanted
    side = LOWER_BOUND if wanted == "native" else wanted
    return side, side


def _report(ledger: Ledger, names: set[str], options: Options, scale: int) -> None:
    """Say what was written and how to read it; end with code 1 if something failed."""
    entries = [entry for name, entry in ledger.entries.items() if name in names]
    errors = [entry["error"] for entry in entries if entry["error"]]
    units = f": metres = value / {scale} in *.depth.png (16 bit)" if scale else ""
    print(f"{len(entries) - len(errors)} predictions in {options.output}{units}")
    if errors:
        fail(
            f"{len(errors)} of {len(names)} pictures failed, all named in "
            f"{options.output}/{ledger.path.name}: {'; '.join(errors[:3])}"
        )


def _stop(signum: int, frame: object) -> None:
    """End on SIGTERM as on an error: what is done is noted."""
    raise SystemExit(128 + signum)


@one_line_errors
def main(args: list[str] | None = None) -> None:
    """Run predict.py with `args` or the command line."""
    quiet()
    given = vars(parser().parse_args(args))
    given["formats"] = tuple(given["formats"])
    run(Options(**given))
