"""Depth of pictures that come one by one, computed in batches with their adapters."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from app.prediction.camera import Camera
from app.prediction.data import BATCH_PIXELS
from app.prediction.options import Format
from app.prediction.predictor import of_cameras
from app.serving.batcher import Batcher
from app.serving.metrics import Metrics
from app.serving.options import Limits, Serving
from app.serving.pictures import (
    Answer,
    Ready,
    Routing,
    Wanted,
    blank,
    check_format,
    decode,
    encode,
    prepare,
    to_route,
)
from app.serving.pool import Pool
from app.serving.refusals import RefusedError
from app.serving.shelf import Shelf
from datamodules.files.images.decoding import Decoded
from models.router import Choice as Routed
from models.router import pooled_features

LONG_S = 1e6


class DepthService:
    """A network and its adapters in memory, and the threads around them.

    Args:
        shelf: What predicts.
        serving: How.
        limits: What is refused.
        metrics: What is counted.
    """

    def __init__(
        self, shelf: Shelf, serving: Serving, limits: Limits, metrics: Metrics
    ) -> None:
        self.shelf, self.limits, self.metrics = shelf, limits, metrics
        self.fabric = Fabric(
            accelerator=serving.accelerator, devices=1, precision=serving.precision
        )
        self.network = shelf.network.to(self.fabric.device)
        self.batcher = Batcher[Ready | Routing, Tensor | Routed](
            self.predict, serving.batch_size, BATCH_PIXELS, self._on_batch
        )
        threads = serving.workers_decode
        self.decoding = Pool("decode", threads, metrics.taken("decode"))
        self.encoding = Pool("encode", threads, self._on_encoded)
        self.warm = False
        metrics.watch(
            "queue_pictures", "Pictures that wait.", lambda: len(self.batcher)
        )
        metrics.watch("adapters", "Adapters loaded.", lambda: len(shelf.names))

    async def start(self) -> None:
        """Answer somebody, so that the first request is as fast as others."""
        self.batcher.start()
        first, content = self.shelf.plain or self.shelf.all()[0], blank()
        wanted = Wanted("npy", Camera(fov_deg=60), first.name)
        decoded = decode(content, "", "apply", self.limits.max_pixels)
        ready = prepare(decoded, wanted, ["npy"], self.shelf, first)
        await self.batcher.measure(ready, ready.pixels_in)
        if find_spec("trimesh") is not None:
            # Of the format glb; it takes 0.3 s.
            await asyncio.to_thread(import_module, "trimesh")
        due = asyncio.get_running_loop().time() + LONG_S
        for _ in range(2):
            # What comes first is slow for reasons of its own: the second one counts.
            self.decoding.seconds = self.encoding.seconds = 0.0
            await self.depth(content, wanted, due)
        self.warm = True

    async def stop(self) -> None:
        """Let what is being computed end."""
        await self.batcher.stop()
        self.decoding.stop()
        self.encoding.stop()

    def check(self, wanted: Wanted) -> None:
        """Refuse what no picture could make possible, before one is read.

        Raises:
            RefusedError: 400, 404 or 422.
        """
        if not wanted.route:
            with self.shelf.taken(wanted.adapter) as shelved:
                check_format(wanted.format, self.shelf, shelved)
        elif wanted.adapter is not None:
            raise RefusedError(400, "adapter and route both choose adapters; give one")
        elif self.shelf.router is None:
            raise RefusedError(
                422, "this service has no router; name an adapter with ?adapter=NAME"
            )

    async def depth(self, content: bytes, wanted: Wanted, due: float) -> Answer:
        """The answer to one request: `answers` in one format."""
        (answer,) = await self.answers(content, wanted, [wanted.format], due)
        return answer

    async def answers(
        self,
        content: bytes,
        wanted: Wanted,
        formats: Sequence[Format | None],
        due: float,
    ) -> list[Answer]:
        """One prediction in several formats.

        Args:
            content: A picture's file.
            wanted: Which adapter, which camera.
            formats: None for the numbers about the prediction alone.
            due: On the loop's clock.

        Raises:
            RefusedError: Whatever is wrong with it, or with its time.
        """
        exif, most = self.shelf.prediction.exif, self.limits.max_pixels
        opened = partial(decode, content, wanted.filename, exif, most)
        notes: dict[str, Any] = {"unit": self.shelf.unit}
        name = wanted.adapter
        with ExitStack() as stack:
            if not wanted.route:
                shelved = stack.enter_context(self.shelf.taken(name))
            decoded = await self.decoding.run(opened, due)
            if wanted.route:
                found = await self._routed(decoded, due)
                notes["confidence"] = found.confidence
                shelved = stack.enter_context(self.shelf.taken(found.adapter))
            for kind in formats:
                check_format(kind, self.shelf, shelved)
            work = partial(prepare, decoded, wanted, formats, self.shelf, shelved)
            ready = await self.decoding.run(work, due)
            began = time.monotonic()
            depth = await self.batcher.submit(ready.shape, ready, ready.pixels_in, due)
            self.metrics.taken("predict")(time.monotonic() - began)
            assert isinstance(depth, Tensor)
            written = partial(encode, depth, ready, formats, notes)
            return await self.encoding.run(written, due)

    @torch.inference_mode()
    def predict(self, batch: Sequence[Ready | Routing]) -> list[Tensor | Routed]:
        """Depth (h, w) of pictures of one input shape, each with its own adapter.

        Or what the router says of each, where all are `Routing`.
        """
        image = torch.stack([one.image for one in batch]).to(self.fabric.device)
        ready = [one for one in batch if isinstance(one, Ready)]
        if not ready:
            router, bank = self.shelf.router, self.shelf.bank
            assert router is not None
            assert bank is not None
            return list(router.choices(pooled_features(bank, image)))
        keys = [one.shelved.given.adapter for one in ready]
        with self.shelf.chosen(keys), self.fabric.autocast():
            depth: Tensor = self.network(image)
        depth = depth[:, 0].float().cpu()
        return [_of_camera(own, one) for own, one in zip(depth, ready, strict=True)]

    def check_moving(self) -> None:
        """Refuse if requests would wait in vain.

        Raises:
            RefusedError: 503, saying what for.
        """
        if not self.warm:
            raise RefusedError(503, "the network is being loaded; try again", 1.0)
        if (stuck_s := self.batcher.stuck_s()) > self.limits.deadline:
            raise RefusedError(
                503, f"a batch has taken {stuck_s:.0f} s more than it should", 10.0
            )

    async def _routed(self, decoded: Decoded, due: float) -> Routed:
        asked = await self.decoding.run(partial(to_route, decoded, self.shelf), due)
        key = ("route", *asked.shape)
        found = await self.batcher.submit(key, asked, asked.pixels_in, due)
        assert isinstance(found, Routed)
        return found

    def _on_batch(self, size: int, seconds: float) -> None:
        self.metrics.batch_size.observe(size)
        self.metrics.taken("network")(seconds)

    def _on_encoded(self, seconds: float) -> None:
        self.metrics.taken("encode")(seconds)
        self.batcher.after_s = self.encoding.seconds


def _of_camera(depth: Tensor, ready: Ready) -> Tensor:
    if ready.factor is None:
        return depth
    return of_cameras(depth[None], [ready.factor], [ready.shelved.given])[0]
