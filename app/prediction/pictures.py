"""Predict depth for every picture, each process its share."""

import signal
import warnings
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from app.errors import fail
from app.prediction.calibrator import Calibrator, PointSampler, far_m
from app.prediction.camera import Camera, input_focals_px
from app.prediction.data import Pictures
from app.prediction.formats import METRES, Look
from app.prediction.header import header
from app.prediction.known_points import known_points
from app.prediction.ledger import LEDGER, Ledger
from app.prediction.model import Given, Model
from app.prediction.options import Format, Prediction
from app.prediction.own_outputs import OwnOutputs
from app.prediction.predictor import Predictor
from app.prediction.running import Runner, runner
from app.prediction.writer import DepthWriter
from datamodules.errors import DataError
from datamodules.files.pictures import Picture, find_images
from datamodules.files.whole import sole_writer
from datamodules.photographs import size_and_focal
from datamodules.sizes import InputSize, Size, fixed, input_size

SLACK = 1.05
"""How far beyond training's focal lengths one may be without a word."""


def predict(model: Model, prediction: Prediction) -> None:
    """Predict depth for every picture, then say how to read the files.

    Args:
        model: Nothing else can be done with it afterwards.
        prediction: What to predict, how, and what to write.

    Raises:
        DataError: If there are no pictures, formats mean what the network does not
            say, or another run writes into the same folder.
    """
    folder = Path(prediction.output).expanduser()
    found = find_images(prediction.images, OwnOutputs(folder))
    pictures = found.pictures
    points = None
    if prediction.points is not None:
        source, units = Path(prediction.points), prediction.points_scale
        points = known_points(source, units, pictures, prediction.exif)
    if (
        model.kind == "relative"
        and points is None
        and set(METRES) & set(prediction.formats)
    ):
        raise DataError(
            f"the network is relative: it predicts {model.unit} without a unit, for "
            f"which {', '.join(METRES)} have no meaning; use --formats npy, pfm or "
            "exr, or give --points, from which metres are made"
        )
    model.check(pictures)
    max_depth, calibrator = model.max_depth, None
    if points is not None:
        own_m = None if model.kind == "relative" else model.max_depth
        max_depth = far_m(points.farthest_m, own_m)
        how = prediction.points_per, prediction.points_fit
        calibrator = Calibrator(points, *how, model.unit, max_depth)
        calibrator.check(pictures)
    scale = prediction.scale(max_depth) if "png" in prediction.formats else 0
    folder.mkdir(parents=True, exist_ok=True)

    runs = runner(prediction)
    with sole_writer(folder) if runs.rank == 0 else nullcontext():
        sha256 = None if points is None else points.sha256
        about = header(model, prediction, scale, sha256)
        ledger = Ledger(folder, about, runs.rank, runs.world_size)
        done = set()
        if not prediction.overwrite:
            done = ledger.done(prediction.formats, pictures)
        camera = Camera(
            prediction.fx,
            prediction.fy,
            prediction.cx,
            prediction.cy,
            prediction.fov,
            prediction.assume_fov,
        )
        left = [picture for picture in pictures if picture.name not in done]
        if found.left_out and runs.rank == 0:
            print(f"left out: {found.left_out} files that predict.py itself wrote")
        if done:
            print(f"{len(pictures) - len(left)} of {len(pictures)} are there already")
        if left:
            ready = _Ready(model, prediction, runs, camera)
            if calibrator is not None and prediction.points_per == "run":
                calibrator = _with_shared(calibrator, runs, ready, pictures)
            predictor, data, given, focals_px = ready(left, prediction.formats)
            writer = DepthWriter(
                folder,
                left,
                focals_px,
                prediction.formats,
                Look(max_depth, scale, prediction.colormap),
                camera,
                calibrator,
                ledger,
                [(own.adapter, own.confidence) for own in given],
            )
            before = signal.signal(signal.SIGTERM, _stop)
            try:
                runs.run(predictor, data, writer)
            finally:
                writer.finish()
                signal.signal(signal.SIGTERM, before)
        runs.barrier()
        if runs.rank == 0:
            errors = ledger.fold()
            said = [
                errors.get(p.name, f"{p.name}: its files are gone") for p in pictures
            ]
            _report(said, prediction, scale)


class _Ready:
    """Makes pictures ready for the network, and the network for them.

    Args:
        model: Nothing but predicting can be done with it afterwards.
        prediction: How to predict.
        runs: That a router is asked by.
        camera: Of the pictures.
    """

    def __init__(
        self, model: Model, prediction: Prediction, runs: Runner, camera: Camera
    ) -> None:
        self.model, self.prediction = model, prediction
        self.runs, self.camera = runs, camera

    def __call__(
        self, some: list[Picture], formats: tuple[Format, ...]
    ) -> tuple[Predictor, Pictures, list[Given], list[float | None]]:
        """Of some of the pictures: predictor, data, what counts, focals by EXIF."""
        model, prediction = self.model, self.prediction
        headers = [size_and_focal(picture, prediction.exif) for picture in some]
        given = model.given(some, prediction, self.runs)
        shapes = [
            _shape(size, own.wanted, model.patch_px, tile=prediction.tile)
            for (size, _), own in zip(headers, given, strict=True)
        ]
        tiles = None
        if prediction.tile:
            tiles = [fixed(own.wanted, model.patch_px) for own in given]
        factors = _factors(some, headers, tiles or shapes, given, self.camera)
        predictor = Predictor(
            model, given, tta=prediction.tta, tiles=tiles, factors=factors
        )
        data = Pictures(
            some,
            shapes,
            replace(prediction, formats=formats),
            model.image_input,
            [own.shrink for own in given],
        )
        return predictor, data, given, [focal_px for _, focal_px in headers]


def _with_shared(
    calibrator: Calibrator, runs: Runner, ready: _Ready, pictures: list[Picture]
) -> Calibrator:
    """With one fit for the run, for which the pictures with points are predicted."""
    points = calibrator.points.by_name
    some = [picture for picture in pictures if picture.name in points]
    sampler = PointSampler(some, points)
    predictor, data, _, _ = ready(some, formats=())
    runs.run(predictor, data, sampler)
    calibrator = calibrator.with_shared(*sampler.gathered(runs))
    if runs.rank == 0 and (found := calibrator.shared) is not None:
        print(
            f"one fit for the run: {found.fit}, scale {found.scale:.6g}, shift "
            f"{found.shift:.6g}, from {found.count} points of {len(some)} pictures"
        )
    return calibrator


def _shape(size: Size | None, wanted: InputSize, patch_px: int, *, tile: bool) -> Size:
    """Network input of a picture; of one that cannot be read it does not matter."""
    if size is None:
        return fixed(wanted, patch_px)
    return input_size(size, "native" if tile else wanted, patch_px)


def _factors(
    pictures: list[Picture],
    headers: list[tuple[Size | None, float | None]],
    inputs: list[Size],
    given: list[Given],
    camera: Camera,
) -> list[float] | None:
    """What makes metres of each picture's prediction; None where all are metres.

    Raises:
        DataError: If the network depends on the camera and one is not known.
    """
    asking = [i for i, own in enumerate(given) if own.canonical_px is not None]
    if not asking:
        return None
    focals_px = input_focals_px(
        [pictures[i] for i in asking],
        [headers[i] for i in asking],
        [inputs[i] for i in asking],
        camera,
    )
    factors = [1.0] * len(given)
    strange: dict[tuple[float, float], list[float]] = {}
    for i, focal_px in zip(asking, focals_px, strict=True):
        canonical_px, seen = given[i].canonical_px, given[i].focals_px
        assert canonical_px is not None
        factors[i] = focal_px / canonical_px
        if seen and (focal_px < seen[0] / SLACK or focal_px > seen[1] * SLACK):
            strange.setdefault(seen, []).append(focal_px)
    for seen, found in strange.items():
        warnings.warn(
            f"{len(found)} of {len(focals_px)} pictures have focal lengths from "
            f"{min(found):.0f} to {max(found):.0f} px of the network's input, "
            f"outside of training's {seen[0]:.0f} to {seen[1]:.0f}: their metres "
            "are less sure",
            stacklevel=2,
        )
    return factors


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
