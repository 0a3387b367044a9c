"""From a request's bytes to the network's input, and from its depth to an answer."""

import errno
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from app.prediction.camera import Camera, Intrinsics, input_focal_px
from app.prediction.formats import COLOURED, METRES, check_finite, summary
from app.prediction.options import Format
from app.prediction.predictor import at_size
from app.serving.refusals import RefusedError
from app.serving.shelf import Shelf, Shelved
from datamodules.errors import DataError
from datamodules.files.images.decoding import Decoded, decode_bytes
from datamodules.files.images.headers import Exif, TooManyPixelsError
from datamodules.inputs import normalise, resize_image
from datamodules.sizes import Size, input_size

TYPES: dict[Format, str] = {
    "png": "image/png",
    "npy": "application/octet-stream",
    "pfm": "application/octet-stream",
    "exr": "image/x-exr",
    "ply": "application/octet-stream",
    "glb": "model/gltf-binary",
    "color": "image/png",
}
CHUNK = 2**18


@dataclass(frozen=True)
class Wanted:
    """What a request asks for, beside its picture."""

    format: Format | None = "png"
    """None: the numbers about the prediction alone."""
    camera: Camera = field(default_factory=Camera)
    adapter: str | None = None
    route: bool = False
    """Whether the router chooses the adapter."""
    filename: str = "the picture"
    """For messages."""


@dataclass(frozen=True)
class Routing:
    """A picture on its way to the router, which asks the network."""

    image: Tensor
    """(3, h, w) normalised."""

    @property
    def shape(self) -> tuple[int, int]:
        """Of the network's input: pictures of one shape share a batch."""
        return self.image.shape[1], self.image.shape[2]

    @property
    def pixels_in(self) -> int:
        """Of the network's input."""
        return self.image[0].numel()


@dataclass(frozen=True)
class Ready(Routing):
    """A picture on its way to the network, with the adapter that it shall have."""

    size: Size
    """(rows, cols) of the picture as shown."""
    pixels: NDArray[np.uint8] | None
    """(H, W, 3) RGB, for formats that show them."""
    intrinsics: Intrinsics | None
    focal_is_assumed: bool
    factor: float | None
    """What makes its own metres of a canonical camera's; None where all are metres."""
    shelved: Shelved


@dataclass(frozen=True)
class Answer:
    """A prediction as it goes out."""

    content: BinaryIO | None
    """An open file that nobody else knows; None where only `about` was asked for."""
    length: int
    media_type: str
    about: dict[str, Any]
    """As in predictions.json, with the adapter and its generation."""

    def __del__(self) -> None:
        # Of an answer that nobody waits for any more, nothing reads the file.
        if self.content is not None:
            self.content.close()

    def chunks(self) -> Iterator[bytes]:
        """The file, which is gone at the end."""
        assert self.content is not None
        with self.content as file:
            while chunk := file.read(CHUNK):
                yield chunk


def decode(content: bytes, name: str, exif: Exif, max_pixels: int) -> Decoded:
    """The pixels of a picture.

    Raises:
        RefusedError: 413 for more than `max_pixels`, before any is decoded; 422 for
            what is no whole picture.
    """
    try:
        return decode_bytes(content, Path(name), exif, max_pixels)
    except TooManyPixelsError as error:
        raise RefusedError(413, str(error)) from None
    except DataError as error:
        raise RefusedError(422, str(error)) from None
    except MemoryError:
        raise RefusedError(413, f"{name} does not fit into memory") from None


def prepare(
    decoded: Decoded,
    wanted: Wanted,
    formats: Sequence[Format | None],
    shelf: Shelf,
    shelved: Shelved,
) -> Ready:
    """A picture as the network reads it, as `predict.py` has it.

    Raises:
        RefusedError: 422 where a focal length is needed and not known.
    """
    given, path, pixels = shelved.given, wanted.filename, decoded.pixels
    size = (pixels.shape[0], pixels.shape[1])
    shape = input_size(size, given.wanted, shelf.network.patch_px)
    camera = wanted.camera
    intrinsics = camera.intrinsics(size, decoded.focal_px)
    coloured = [kind for kind in formats if kind in COLOURED]
    if intrinsics is None and coloured:
        raise RefusedError(
            422,
            f"{path} has no focal length in its EXIF data; give fx (pixels) or fov "
            f"(degrees), or another format than {coloured[0]}",
        )
    factor = None
    if given.canonical_px is not None:
        if intrinsics is None:
            raise RefusedError(
                422,
                f"{path} has no focal length in its EXIF data, without which this "
                "network cannot tell metres; give fx (pixels) or fov (degrees)",
            )
        factor = input_focal_px(intrinsics, size, shape) / given.canonical_px
    image = normalise(resize_image(pixels, shape, given.shrink), shelf.image_input)
    return Ready(
        image,
        size,
        pixels if coloured else None,
        intrinsics,
        camera.assumes(decoded.focal_px),
        factor,
        shelved,
    )


def to_route(decoded: Decoded, shelf: Shelf) -> Routing:
    """A picture as the router reads it: of its size, in the picture's own shape."""
    assert shelf.router is not None
    pixels, bound = decoded.pixels, min(shelf.router.image_size)
    size = (pixels.shape[0], pixels.shape[1])
    shape = input_size(size, bound, shelf.network.patch_px)
    shrink = shelf.prediction.shrink or shelf.image_input.shrink
    image = resize_image(pixels, shape, shrink)
    return Routing(normalise(image, shelf.image_input))


def unfit(wanted: Format | None, shelf: Shelf, shelved: Shelved) -> str | None:
    """Why a format cannot be had of what predicts, and which can; None if it can."""
    if shelf.unit != "metres" and wanted in METRES:
        return (
            f"the network is relative: it predicts {shelf.unit} without a unit, for "
            f"which {wanted} has no meaning; use format npy, pfm, exr or json"
        )
    if wanted == "png" and not shelved.look.png_scale:
        return (
            f"depths up to {shelved.look.max_depth:g} m do not fit a 16-bit PNG; use "
            "format npy, pfm or exr"
        )
    if wanted == "glb" and find_spec("trimesh") is None:
        return "this service lacks trimesh, which writes glb; use format ply"
    return None


def check_format(wanted: Format | None, shelf: Shelf, shelved: Shelved) -> None:
    """Refuse a format that cannot be had of what predicts.

    Raises:
        RefusedError: 422, saying which do.
    """
    if (why := unfit(wanted, shelf, shelved)) is not None:
        raise RefusedError(422, why)


def encode(
    depth: Tensor,
    ready: Ready,
    formats: Sequence[Format | None],
    notes: Mapping[str, Any],
) -> list[Answer]:
    """The files that `predict.py` would have written.

    Args:
        depth: (h, w) at the network's size.
        ready: What was predicted.
        formats: None for the numbers about it alone.
        notes: What else is known of it.

    Raises:
        RefusedError: 500 if the prediction is not finite, 507 if the disk is full.
    """
    own = ready.shelved
    sized = at_size(depth, ready.size)
    try:
        check_finite(sized)
    except DataError as error:
        raise RefusedError(500, str(error)) from None
    about = summary(sized, ready.intrinsics, assumed=ready.focal_is_assumed)
    about |= {"adapter": own.name, "generation": own.generation, **notes}
    return [
        Answer(None, 0, "application/json", about)
        if kind is None
        else _file(sized, ready, kind, about)
        for kind in formats
    ]


def _file(
    depth: NDArray[np.float32], ready: Ready, kind: Format, about: dict[str, Any]
) -> Answer:
    look = ready.shelved.look
    pixels = ready.pixels if ready.pixels is not None else np.empty((0, 0, 3), np.uint8)
    with tempfile.TemporaryDirectory(prefix="lava-") as folder:
        path = Path(folder) / f"depth.{'png' if kind == 'color' else kind}"
        try:
            look.write(kind, path, depth, pixels, ready.intrinsics)
        except DataError as error:
            full = isinstance(error.__context__, OSError) and (
                error.__context__.errno in (errno.ENOSPC, errno.EDQUOT)
            )
            raise RefusedError(507 if full else 422, str(error)) from None
        # Open, it stays readable after its folder has gone.
        content = path.open("rb")
        length = path.stat().st_size
    scale = {"png_units_per_metre": look.png_scale} if kind == "png" else {}
    return Answer(content, length, TYPES[kind], about | scale)


def blank() -> bytes:
    """A grey picture to get warm by."""
    file = io.BytesIO()
    Image.new("RGB", (640, 480), "gray").save(file, "JPEG")
    return file.getvalue()
