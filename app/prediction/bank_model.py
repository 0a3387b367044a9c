"""Predict with several adapters over one network, for each picture its own."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from torch import Tensor

from app.prediction.batch import PhotographBatch, Step
from app.prediction.choice import Choice, Table, read_table
from app.prediction.data import Pictures
from app.prediction.header import NOT_GIVEN
from app.prediction.model import Given, Model, listed
from app.prediction.options import Prediction
from app.prediction.running import Runner
from datamodules.batch import ImageInput
from datamodules.files.pictures import Picture
from datamodules.photographs import size_and_focal
from datamodules.sizes import fixed, input_size
from models.adapters.opened import digest, fingerprint
from models.artefacts.mixed import (
    Several,
    check_names,
)
from models.depth_bank import DepthBank
from models.networks.interface import DepthPredictor
from models.opening_bank import open_bank, open_router
from models.router import Choice as Chosen
from models.router import Router, pooled_features


class BankModel(Model):
    """Adapters of a folder or of a mixed run, over their base.

    Args:
        source: What the user called the base, or the mixed run's checkpoint.
        several: The adapters that may count.
        choice: Who chooses among them.
        base: Weights of the base; None for those that the adapters name.
    """

    kind = "metric"
    unit = "metres"

    def __init__(
        self, source: str, several: Several, choice: Choice, base: str | None
    ) -> None:
        self.source, self.choice = source, choice
        self.table: Table | None = None
        if choice.adapter_of is not None:
            self.table = read_table(Path(choice.adapter_of))
            check_names(self.table.names, several.adapters, several.source)
        self.bank: DepthBank = open_bank(several, base)
        self.router: Router | None = None
        if choice.route:
            self.router = open_router(several, self.bank)
        self.patch_px = self.bank.patch_px
        first = self.bank.record(self.bank.names[0])
        self.image_input = ImageInput.of(self.bank, first.image_shrink)
        with_base = self.table is not None and None in self.table.adapters.values()
        if with_base:
            with self.bank.select(None):
                pass  # refused now, and not at the first such picture
        reaches = [self.bank.record(name).network.max_depth for name in self._wanted()]
        if with_base and self.bank.base is not None:
            reaches.append(self.bank.base.max_depth)
        self.max_depth = max(reach or 1.0 for reach in reaches)

    def about(self, prediction: Prediction) -> dict[str, object]:
        wanted = self._wanted()
        given = {name: self._given(name, prediction) for name in wanted}
        router = None if self.router is None else digest(self.router.state_dict())
        return {
            "model": self.source,
            "sha256": fingerprint(self.bank.network),
            "kind": self.kind,
            "unit": self.unit,
            "adapters_sha256": {
                name: digest(self.bank.opened(name).tensors) for name in wanted
            },
            "router_sha256": router or NOT_GIVEN,
            "max_depth": {name: own.max_depth for name, own in given.items()},
            "canonical_focal_px": {n: own.canonical_px for n, own in given.items()},
            "input_size": {name: listed(own.wanted) for name, own in given.items()},
            "image_shrink": {name: own.shrink for name, own in given.items()},
            "engine": "torch",
            "adapter": self.choice.adapter or NOT_GIVEN,
            "adapter_of": NOT_GIVEN if self.table is None else self.table.sha256,
            "route": self.choice.route,
        }

    def check(self, pictures: Sequence[Picture]) -> None:
        if self.table is not None:
            self.table.of(pictures)

    def given(
        self, pictures: Sequence[Picture], prediction: Prediction, runner: Runner
    ) -> list[Given]:
        if self.choice.route:
            routed = self._routed(pictures, prediction, runner)
            return [self._given(r.adapter, prediction, r.confidence) for r in routed]
        if self.table is not None:
            names = self.table.of(pictures)
        else:
            names = [self.choice.adapter] * len(pictures)
        return [self._given(name, prediction) for name in names]

    def ready(self) -> DepthPredictor:
        return self.bank.eval()

    def chosen(self, adapters: Sequence[str | None]) -> AbstractContextManager[None]:
        return self.bank.select(adapters)

    def _wanted(self) -> list[str]:
        """Names of the adapters that may count."""
        if self.choice.adapter is not None:
            return [self.choice.adapter]
        if self.table is not None:
            return self.table.names
        return list(self.router.names) if self.router else list(self.bank.names)

    def _given(
        self, name: str | None, prediction: Prediction, confidence: float | None = None
    ) -> Given:
        if name is None:
            # As predict.py has the base where it is alone.
            record, spec = None, self.bank.base
            size, shrink = self.bank.base_size, ImageInput().shrink
        else:
            record = self.bank.record(name)
            spec, size, shrink = record.network, record.image_size, record.image_shrink
        assert spec is not None
        args = (spec, size, shrink, record, self.patch_px, prediction)
        return Given.of(*args, name, confidence)

    def _routed(
        self, pictures: Sequence[Picture], prediction: Prediction, runner: Runner
    ) -> list[Chosen]:
        """What the router says of each picture; each process asks for its share."""
        assert self.router is not None
        # Of the router's size, in the picture's own shape.
        bound = min(self.router.image_size)
        shapes = []
        for picture in pictures:
            size, _ = size_and_focal(picture, prediction.exif)
            shapes.append(
                fixed(bound, self.patch_px)
                if size is None
                else input_size(size, bound, self.patch_px)
            )
        shrinks = [prediction.shrink or self.image_input.shrink] * len(pictures)
        data = Pictures(
            list(pictures), shapes, prediction, self.image_input, shrinks, pixels=False
        )
        found = Routed()
        runner.run(Routing(self.bank.eval(), self.router), data, found)
        by_index = {
            i: own
            for share in runner.gathered(found.by_index)
            for i, own in share.items()
        }
        return [by_index[index] for index in range(len(pictures))]


class Routing(Step):
    """Asks the router for an adapter for every picture."""

    def __init__(self, bank: DepthBank, router: Router) -> None:
        super().__init__()
        self.bank, self.router = bank, router

    def step(self, batch: PhotographBatch) -> list[Chosen]:
        """The choice of each picture."""
        image: Tensor = batch["image"]
        return self.router.choices(pooled_features(self.bank, image))


class Routed:
    """What the router said of each picture, by its index."""

    def __init__(self) -> None:
        self.by_index: dict[int, Chosen] = {}

    def add(
        self, outcome: list[Chosen], batch: PhotographBatch, seconds: float
    ) -> None:
        """Note a batch's choices."""
        self.by_index.update(zip(batch["index"], outcome, strict=True))
