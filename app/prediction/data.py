"""Pictures as a network reads them, in batches of one shape."""

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from app.prediction.formats import COLOURED
from app.prediction.options import Prediction
from app.prediction.predictor import collate
from datamodules.batch import ImageInput
from datamodules.files.pictures import Picture
from datamodules.photographs import Photograph, Photographs, ShapeBatches
from datamodules.sizes import Shrink, Size

BATCH_PIXELS = 8 * 518 * 686
"""Input pixels in a batch, at most: larger pictures come in smaller batches."""


class Pictures(LightningDataModule):
    """The pictures that are still to be done, each process its share.

    Args:
        pictures: Which.
        shapes: Network input (rows, cols) of each.
        prediction: Batches, processes, formats.
        image_input: What the network reads.
        shrinks: How each one, if it is larger, is brought to its input.
        pixels: Whether point clouds, if those are asked for, are to be made of them.
    """

    def __init__(
        self,
        pictures: list[Picture],
        shapes: list[Size],
        prediction: Prediction,
        image_input: ImageInput,
        shrinks: list[Shrink],
        *,
        pixels: bool = True,
    ) -> None:
        super().__init__()
        # There may be fewer pictures than processes.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.pictures, self.shapes = pictures, shapes
        self.prediction, self.image_input = prediction, image_input
        self.shrinks = shrinks
        self.keep_pixels = pixels and bool({*COLOURED} & {*prediction.formats})

    def predict_dataloader(self) -> DataLoader[Photograph]:
        assert self.trainer is not None
        place = (self.trainer.world_size, self.trainer.global_rank)
        size = self.prediction.batch_size
        return DataLoader(
            Photographs(
                self.pictures,
                self.shapes,
                keep_pixels=self.keep_pixels,
                image_input=self.image_input,
                shrinks=self.shrinks,
                exif=self.prediction.exif,
            ),
            batch_sampler=ShapeBatches(self.shapes, size, BATCH_PIXELS, *place),
            num_workers=min(self.prediction.workers, len(self.pictures)),
            collate_fn=collate,
        )
