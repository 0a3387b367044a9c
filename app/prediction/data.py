"""Pictures as a network reads them, in batches of one shape."""

from torch.utils.data import DataLoader

from app.prediction.batch import collate
from app.prediction.formats import COLOURED
from app.prediction.options import Prediction
from datamodules.batch import ImageInput
from datamodules.files.pictures import Picture
from datamodules.photographs import Photograph, Photographs, ShapeBatches
from datamodules.sizes import Shrink, Size

BATCH_PIXELS = 8 * 518 * 686
"""Input pixels in a batch, at most: larger pictures come in smaller batches."""


class Pictures:
    """The pictures that are still to be done: each process's batches of its share.

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
        self.pictures, self.shapes = pictures, shapes
        self.prediction, self.image_input = prediction, image_input
        self.shrinks = shrinks
        self.keep_pixels = pixels and bool({*COLOURED} & {*prediction.formats})

    def __call__(self, world_size: int, rank: int) -> DataLoader[Photograph]:
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
            batch_sampler=ShapeBatches(
                self.shapes, size, BATCH_PIXELS, world_size, rank
            ),
            num_workers=min(self.prediction.workers, len(self.pictures)),
            collate_fn=collate,
        )
