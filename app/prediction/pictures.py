"""Predict depth for every picture, each process its share."""

import signal
import warnings
from dataclasses import replace
from pathlib import Path

from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from app.errors import fail
from app.prediction.calibrator import Calibrator, PointSampler, far_m
from app.prediction.camera import Camera, input_focals_px
from app.prediction.header import header
from app.prediction.known_points import known_points
from app.prediction.ledger import LEDGER, Ledger
from app.prediction.options import Format, Prediction
from app.prediction.own_outputs import OwnOutputs
from app.prediction.predictor import Predictor, collate
from app.prediction.writer import DepthWriter
from datamodules.batch import ImageInput
from datamodules.errors import DataError
from datamodules.files.pictures import Picture, find_images
from datamodules.photographs import (
    Photograph,
    Photographs,
    ShapeBatches,
    size_and_focal,
)
from datamodules.sizes import InputSize, Size, fixed, input_size
from models.artefacts.form import Opened

METRES = ("png", "ply", "color")
"""Formats that mean metres."""
SLACK = 1.05
"""How far beyond training's focal lengths one may be without a word."""
BATCH_PIXELS = 8 * 518 * 686
"""Input pixels in a batch, at most: larger pictures come in smaller batches."""


class Pictures(LightningDataModule):
    """The pictures that are still to be done, each process its share.

    Args:
        pictures: Which.
        shapes: Network input (rows, cols) of each.
        prediction: Batches, processes, formats.
        image_input: What the network reads.
    """

    def __init__(
        self,
        pictures: list[Picture],
        shapes: list[Size],
        prediction: Prediction,
        image_input: ImageInput,
    ) -> None:
        super().__init__()
        # There may be fewer pictures than processes.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.pictures, self.shapes = pictures, shapes
        self.prediction, self.image_input = prediction, image_input

    def predict_dataloader(self) -> DataLoader[Photograph]:
        assert self.trainer is not None
        place = (self.trainer.world_size, self.trainer.global_rank)
        size = self.prediction.batch_size
        return DataLoader(
            Photographs(
                self.pictures,
                self.shapes,
                keep_pixels="ply" in self.prediction.formats,
                image_input=self.image_input,
                exif=self.prediction.exif,
            ),
            batch_sampler=ShapeBatches(self.shapes, size, BATCH_PIXELS, *place),
            num_workers=min(self.prediction.workers, len(self.pictures)),
            collate_fn=collate,
        )


def predict(opened: Opened, prediction: Prediction, wanted: InputSize) -> None:
    """Predict depth for every picture, then say how to read the files.

    Args:
        opened: Its adapters are folded in, in place.
        prediction: What to predict, how, and what to write.
        wanted: The network's input.

    Raises:
        DataError: If there are no pictures, or formats mean what the network does not
            say.
    """
    folder = Path(prediction.output)
    found = find_images(prediction.images, OwnOutputs(folder))
    pictures = found.pictures
    spec, unit = opened.network.spec, opened.network.unit
    points = None
    if prediction.points is not None:
        source, units = Path(prediction.points), prediction.points_scale
        points = known_points(source, units, pictures, prediction.exif)
    if (
        spec.kind == "relative"
        and points is None
        and set(METRES) & set(prediction.formats)
    ):
        raise DataError(
            f"the network is relative: it predicts {unit} without a unit, for which "
            f"{', '.join(METRES)} have no meaning; use --formats npy, pfm or exr, "
            "or give --points, from which metres are made"
        )
    max_depth, calibrator = spec.max_depth or 1.0, None
    if points is not None:
        max_depth = far_m(points.farthest_m, spec.max_depth)
        how = prediction.points_per, prediction.points_fit
        calibrator = Calibrator(points, *how, unit, max_depth)
        calibrator.check(pictures)
    scale = prediction.scale(max_depth) if "png" in prediction.formats else 0
    folder.mkdir(parents=True, exist_ok=True)

    trainer = Trainer(
        accelerator=prediction.accelerator,
        devices=prediction.devices,
        precision=prediction.precision,
        logger=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
    )
    image_input = opened.image_input
    if prediction.shrink is not None:
        image_input = replace(image_input, shrink=prediction.shrink)
    sha256 = None if points is None else points.sha256
    about = header(opened, prediction, wanted, image_input.shrink, scale, sha256)
    ledger = Ledger(folder, about, trainer.global_rank, trainer.world_size)
    done = set() if prediction.overwrite else ledger.done(prediction.formats)
    camera = Camera(
        prediction.fx,
        prediction.fy,
        prediction.cx,
        prediction.cy,
        prediction.fov,
        prediction.assume_fov,
    )
    left = [picture for picture in pictures if picture.name not in done]
    if found.left_out and trainer.is_global_zero:
        print(f"left out: {found.left_out} files that predict.py itself wrote")
    if done:
        print(f"{len(pictures) - len(left)} of {len(pictures)} are there already")
    if left:
        ready = _Ready(opened, prediction, wanted, camera, image_input)
        if calibrator is not None and prediction.points_per == "run":
            calibrator = _with_shared(calibrator, trainer, ready, pictures)
        model, data, focals_px = ready(left, prediction.formats)
        writer = DepthWriter(
            folder,
            left,
            focals_px,
            prediction.formats,
            max_depth,
            scale,
            prediction.colormap,
            camera,
            calibrator,
            ledger,
        )
        trainer.callbacks.append(writer)  # type: ignore[attr-defined]
        before = signal.signal(signal.SIGTERM, _stop)
        try:
            trainer.predict(model, data, return_predictions=False)
        finally:
            writer.finish()
            signal.signal(signal.SIGTERM, before)
    trainer.strategy.barrier()
    if trainer.is_global_zero:
        errors = ledger.fold()
        said = [errors.get(p.name, f"{p.name}: its files are gone") for p in pictures]
        _report(said, prediction, scale)


class _Ready:
    """Makes pictures ready for the network, and the network for them.

    Args:
        opened: Its adapters are folded in, in place.
        prediction: How to predict.
        wanted: The network's input.
        camera: Of the pictures.
        image_input: What the network reads.
    """

    def __init__(
        self,
        opened: Opened,
        prediction: Prediction,
        wanted: InputSize,
        camera: Camera,
        image_input: ImageInput,
    ) -> None:
        self.opened, self.prediction, self.wanted = opened, prediction, wanted
        self.camera, self.image_input = camera, image_input

    def __call__(
        self, some: list[Picture], formats: tuple[Format, ...]
    ) -> tuple[Predictor, Pictures, list[float | None]]:
        """Model, data and focal lengths by EXIF of some of the pictures."""
        prediction, wanted = self.prediction, self.wanted
        headers = [size_and_focal(picture, prediction.exif) for picture in some]
        seen: InputSize = "native" if prediction.tile else wanted
        patch_px = self.opened.network.patch_px
        shapes = [_shape(size, seen, wanted, patch_px) for size, _ in headers]
        tile = fixed(wanted, patch_px) if prediction.tile else None
        whole = shapes if tile is None else [tile] * len(shapes)
        factors = _factors(self.opened, some, headers, whole, self.camera)
        model = Predictor(
            self.opened.merged(), tta=prediction.tta, tile=tile, factors=factors
        )
        data = Pictures(
            some, shapes, replace(prediction, formats=formats), self.image_input
        )
        return model, data, [focal_px for _, focal_px in headers]


def _with_shared(
    calibrator: Calibrator, trainer: Trainer, ready: _Ready, pictures: list[Picture]
) -> Calibrator:
    """With one fit for the run, for which the pictures with points are predicted."""
    points = calibrator.points.by_name
    some = [picture for picture in pictures if picture.name in points]
    sampler = PointSampler(some, points)
    model, data, _ = ready(some, formats=())
    trainer.callbacks.append(sampler)  # type: ignore[attr-defined]
    trainer.predict(model, data, return_predictions=False)
    trainer.callbacks.remove(sampler)  # type: ignore[attr-defined]
    calibrator = calibrator.with_shared(*sampler.gathered())
    if trainer.is_global_zero and (found := calibrator.shared) is not None:
        print(
            f"one fit for the run: {found.fit}, scale {found.scale:.6g}, shift "
            f"{found.shift:.6g}, from {found.count} points of {len(some)} pictures"
        )
    return calibrator


def _shape(
    size: Size | None, seen: InputSize, wanted: InputSize, patch_px: int
) -> Size:
    """Network input of a picture; of one that cannot be read it does not matter."""
    if size is None:
        return fixed(wanted, patch_px)
    return input_size(size, seen, patch_px)


def _factors(
    opened: Opened,
    pictures: list[Picture],
    headers: list[tuple[Size | None, float | None]],
    inputs: list[Size],
    camera: Camera,
) -> list[float] | None:
    """What makes metres of each picture's prediction; None where it is metres.

    Raises:
        DataError: If the network depends on the camera and one is not known.
    """
    canonical_px = opened.network.canonical_focal_px
    if canonical_px is None:
        return None
    focals_px = input_focals_px(pictures, headers, inputs, camera)
    seen = None if opened.record is None else opened.record.focals_px
    if seen is not None:
        low, high = seen[0] / SLACK, seen[1] * SLACK
        strange = [f for f in focals_px if f < low or f > high]
        if strange:
            warnings.warn(
                f"{len(strange)} of {len(focals_px)} pictures have focal lengths from "
                f"{min(strange):.0f} to {max(strange):.0f} px of the network's input, "
                f"outside of training's {seen[0]:.0f} to {seen[1]:.0f}: their metres "
                "are less sure",
                stacklevel=2,
            )
    return [focal_px / canonical_px for focal_px in focals_px]


def _report(found: list[str], prediction: Prediction, scale: int) -> None:
    """Say what was written and how to read it; end with code 1 if something failed."""
    errors = list(filter(None, found))
    units = f": metres = value / {scale} in *.depth.png (16 bit)" if scale else ""
    print(f"{len(found) - len(errors)} predictions in {prediction.output}{units}")
    if errors:
        fail(
            f"{len(errors)} of {len(found)} pictures failed, all named in "
            f"{prediction.output}/{LEDGER}: {'; '.join(errors[:3])}"
        )


def _stop(signum: int, frame: object) -> None:
    """End on SIGTERM as on an error: what is done is noted."""
    raise SystemExit(128 + signum)
