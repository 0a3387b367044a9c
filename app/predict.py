"""The command line of predict.py: photographs in, depth maps out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from jsonargparse import set_parsing_settings
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, default_collate

from app.cli import quiet
from app.errors import OneLineParser, fail, one_line_errors
from datamodules.batch import DataError
from datamodules.depth_files import png_scale, write_colour, write_png16
from datamodules.images import Photograph, Photographs, find_images
from models.adapters import merge
from models.networks import DepthNetwork
from models.networks.pretrained import save_network
from models.record import load_checkpoint


@dataclass(frozen=True)
class Options:
    """What predict.py can be told."""

    model: str
    """A run's checkpoint (.ckpt)."""
    output: str = "predictions"
    """Folder for the depth maps; it mirrors the folders of the photographs."""
    export: str | None = None
    """Also write the adapted network, merged, as config.json and model.safetensors
    with the official Depth Anything keys into this folder."""
    batch_size: int = 8
    """Photographs at a time."""
    workers: int = 2
    """Processes that read photographs."""
    accelerator: str = "auto"
    """cpu, gpu or auto."""
    devices: str = "auto"
    """How many processors to share the photographs among."""


class PhotographBatch(TypedDict):
    """`Photograph`s, stacked."""

    image: Tensor
    size: list[tuple[int, int]]
    path: list[str]
    error: list[str]


class Predictor(LightningModule):
    """A trained network that predicts at each photograph's own size."""

    def __init__(self, network: DepthNetwork) -> None:
        super().__init__()
        self.network = network

    def predict_step(self, batch: PhotographBatch, batch_idx: int) -> list[Tensor]:
        """Depth (H, W) in metres of each photograph, empty where it is unreadable."""
        depth = self.network(batch["image"])
        return [
            F.interpolate(depth[i : i + 1], size, mode="bilinear", align_corners=True)[
                0, 0
            ].cpu()
            if all(size)
            else torch.empty(0)
            for i, size in enumerate(batch["size"])
        ]


class DepthWriter(BasePredictionWriter):
    """Write each prediction as `<name>.depth.png` and `<name>.colour.png`.

    The photograph's own suffix stays in the name, so that a.jpg and a.png keep apart.

    Args:
        folder: Where to; the photographs' folders are mirrored below it.
        max_depth: Metres; sets the PNG's units and the far end of the colours.
    """

    def __init__(self, folder: Path, max_depth: float) -> None:
        super().__init__(write_interval="batch")
        self.folder, self.max_depth = folder, max_depth
        self.scale = png_scale(max_depth)
        self.written = 0
        self.errors: list[str] = []

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: PhotographBatch,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        for depth, path, error in zip(
            prediction, batch["path"], batch["error"], strict=True
        ):
            if error:
                self.errors.append(error)
                continue
            stem = self.folder / path
            stem.parent.mkdir(parents=True, exist_ok=True)
            metres = depth.float().numpy()
            write_png16(stem.with_name(f"{stem.name}.depth.png"), metres, self.scale)
            colours = stem.with_name(f"{stem.name}.colour.png")
            write_colour(colours, metres, self.max_depth)
            self.written += 1


def predict(images: list[str], options: Options) -> None:
    """Predict depth for every photograph, then say how to read the files.

    Unreadable photographs are left out and named at the end.
    """
    network, record = load_checkpoint(Path(options.model))
    merge(network)
    network.eval()
    if options.export is not None:
        notes = {key: record.to_dict()[key] for key in ("base", "adapter", "scores")}
        save_network(network, Path(options.export), notes)
        print(f"merged network: {options.export}")
    if not images:
        if options.export is None:
            raise DataError("no photographs given; name image files or folders")
        return
    max_depth = record.network.max_depth
    assert max_depth is not None, "only metric networks are trained"
    files = find_images([Path(given) for given in images])
    writer = DepthWriter(Path(options.output), max_depth)
    Path(options.output).mkdir(parents=True, exist_ok=True)
    loader = DataLoader(
        Photographs(files, record.image_size),
        batch_size=options.batch_size,
        num_workers=min(options.workers, len(files)),
        collate_fn=_collate,
    )
    trainer = Trainer(
        accelerator=options.accelerator,
        devices=options.devices,
        logger=False,
        callbacks=[writer],
        enable_model_summary=False,
    )
    trainer.predict(Predictor(network), loader, return_predictions=False)
    print(
        f"{writer.written} depth maps in {options.output}: "
        f"metres = value / {writer.scale} in *.depth.png (16 bit)"
    )
    if writer.errors:
        fail(
            f"{len(writer.errors)} of {len(files)} photographs could not be read: "
            f"{'; '.join(writer.errors[:3])}"
        )


def _collate(items: list[Photograph]) -> PhotographBatch:
    return PhotographBatch(
        image=default_collate([item["image"] for item in items]),
        size=[item["size"] for item in items],
        path=[item["path"] for item in items],
        error=[item["error"] for item in items],
    )


@one_line_errors
def main(args: list[str] | None = None) -> None:
    """Run predict.py with `args` or the command line."""
    quiet()
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = OneLineParser(prog="predict.py", description=predict.__doc__ or "")
    parser.add_argument(
        "images", nargs="*", type=str, help="Image files, or folders of them."
    )
    parser.add_class_arguments(Options)
    given = parser.parse_args(args)
    images = given.pop("images")
    predict(images, Options(**vars(given)))
