"""Scores of predicted depth maps, by the protocol of the data at hand."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from app.training.predicted import SHOWN, PredictedMaps
from app.training.results import write_result
from datamodules.base import DepthDataModule
from datamodules.batch import DepthBatch
from datamodules.errors import DataError
from datamodules.protocols import Protocol, window_box
from models.boundary import BoundaryF1
from models.depth_metrics import DepthMetrics
from models.evaluation import met, rows_of, told_of_test
from models.metrics import METRICS
from models.resizing import resize_each
from models.scoring import Scoring
from models.task_module import Row

FAR_OFF = 4.0
"""How many times the truth predictions may be before their unit is doubted."""


def score(data: DepthDataModule, maps: PredictedMaps, scoring: Scoring) -> None:
    """Score the test frames' maps, print the table, and write it beside them.

    Raises:
        DataError: If no frame has a map, or one cannot be scored.
    """
    data.prepare_data()
    data.setup("test")
    loaders: Any = data.test_dataloader()
    each = loaders if isinstance(loaders, list) else [loaders]
    for (name, part), loader in zip(data.parts.items(), each, strict=True):
        tally = Tally(part.protocol, maps, scoring)
        for batch in tqdm(loader, "scoring", unit="batch", leave=False, disable=None):
            tally.add(batch)
        for line in tally.result(name, maps.folder, loader):
            print(line)


class Tally:
    """Sums over the frames of one source.

    Args:
        protocol: By which they are scored.
        maps: What was predicted.
        scoring: What is done beside the protocol.
    """

    def __init__(
        self, protocol: Protocol, maps: PredictedMaps, scoring: Scoring
    ) -> None:
        self.protocol, self.maps, self.scoring = protocol, maps, scoring
        self.metrics, self.edges = DepthMetrics(), BoundaryF1()
        self.rows: list[Row] = []
        self.missing: list[str] = []
        self.not_above_0: list[str] = []
        self.ratios: list[float] = []

    def add(self, batch: DepthBatch) -> None:
        """Score a batch's frames, each with its own map."""
        for one in _each(batch):
            (frame,), target, valid = one["path"], one["depth"], one["valid"]
            path = self.maps.path(frame) if frame else None
            if path is None:
                self.missing.append(frame)
                continue
            depth = met(self._shown(path, one), one, self.protocol, self.scoring.align)
            self.metrics.update(depth, target, valid, self.protocol.silog)
            if self.scoring.boundary:
                self.edges.update(depth, target, valid)
            if self.scoring.per_image:
                self.rows += rows_of(depth, one, self.protocol)

    def _shown(self, path: Path, one: DepthBatch) -> Tensor:
        """One map (1, 1, H, W) at its truth's size.

        Of one that is as large as the whole frame it is the part that is looked at.
        """
        found, rules = self.maps.read(path), self.protocol
        shape = one["depth"].shape[-2:]
        if found.shape != tuple(shape) and rules.window != "none":
            top, bottom, left, right = window_box(rules.window, *found.shape)
            found = found[top:bottom, left:right]
        depth = torch.from_numpy(np.ascontiguousarray(found))[None, None]
        depth = resize_each(depth, one["size"], shape, rules.align_corners)
        counted = depth[one["valid"]]
        if wrong := len(counted) - int(counted.isfinite().sum()):
            raise DataError(
                f"{path} is not finite in {wrong} of the {len(counted)} pixels that "
                "count; a prediction has a number there"
            )
        if len(counted):
            ratio = counted.median() / one["depth"][one["valid"]].median()
            self.ratios.append(float(ratio))
        if self.scoring.align != "disparity" and (counted <= 0).any():
            if not rules.clamp:
                raise DataError(
                    f"{path} has depth of 0 or less where it counts, for which "
                    f"protocol {rules.name} has no score; predict something there"
                )
            self.not_above_0.append(path.name)
        return depth

    def result(self, name: str, folder: Path, loader: DataLoader[Any]) -> Iterator[str]:
        """Write the results; what to print of them."""
        frames = len(loader.dataset)  # type: ignore[arg-type]
        if len(self.missing) == frames:
            first = next(iter(self.missing), "")
            raise DataError(
                f"none of the {frames} frames ({first}, ...) has a map in {self.maps}; "
                "a map is called as its frame is, with its folders or without"
            )
        means = self.metrics.compute()
        counts = int(means.pop("n_images")), int(means.pop("n_empty"))
        if counts[0] == 0:
            raise DataError(
                f"none of the {counts[1]} images has a pixel that counts in protocol "
                f"{self.protocol.name}"
            )
        told = told_of_test(
            name,
            self.protocol,
            self.scoring,
            {metric: float(means[metric]) for metric in METRICS},
            counts,
            self.edges.scores() if self.scoring.boundary else None,
            self.rows,
        )
        also: Mapping[str, object] = {
            "predictions": str(folder.resolve()),
            "n_missing": len(self.missing),
        }
        yield from write_result(folder, told, frames, also, list(self._notes()))

    def _notes(self) -> Iterator[str]:
        if self.missing:
            named = ", ".join(filter(None, self.missing[:SHOWN]))
            yield f"WARNING: {len(self.missing)} frames have no map ({named}, ...)"
        if self.not_above_0:
            low = self.protocol.min_depth
            yield (
                f"{len(self.not_above_0)} maps have depth of 0 or less "
                f"({', '.join(self.not_above_0[:SHOWN])}), scored as {low:g} m"
            )
        ratio = float(np.median(self.ratios)) if self.ratios else 1.0
        if self.scoring.align == "none" and not 1 / FAR_OFF < ratio < FAR_OFF:
            yield (
                f"WARNING: the maps are {ratio:.3g} times as far as the truth: is "
                "--depth_scale right, or are they relative (--align)?"
            )


def _each(batch: DepthBatch) -> Iterator[DepthBatch]:
    """Batches of one frame, without the padding of its truth."""
    for i, (rows, cols) in enumerate(batch["size"]):
        own = slice(i, i + 1)
        yield DepthBatch(
            image=batch["image"][own],
            depth=batch["depth"][own, :, :rows, :cols],
            valid=batch["valid"][own, :, :rows, :cols],
            size=[(rows, cols)],
            path=batch["path"][own],
            skipped=batch["skipped"][own],
        )
