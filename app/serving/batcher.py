"""One thread that computes, and the pictures that wait for it.

A batch begins when the thread is free, with what waits then: nobody waits for company,
and under load batches fill by themselves. How many may wait follows from the deadlines
and from what batches were seen to take, not from a number that somebody guessed. Where
nothing is computed and nothing waits, the next picture is computed whatever is expected
of it: only batches can show that those before were slow by chance.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from app.serving.pace import Pace
from app.serving.refusals import RefusedError, busy

T = TypeVar("T")
R = TypeVar("R")
MARGIN = 1.25
"""By how much a batch may take longer than those before: on a machine that does other
things, too, one in twenty takes that much more."""
FEW = 4
"""Items in the larger one of two batches that are measured at the start."""


@dataclass(eq=False)
class _Job(Generic[T, R]):
    key: Hashable
    item: T
    pixels: int
    due: float
    """On the loop's clock; infinite for what is computed in any case."""
    answer: asyncio.Future[R]


class Batcher(Generic[T, R]):
    """Computes items in batches of one key.

    Args:
        compute: Items of one key to their results, in a thread of its own.
        batch_size: Items in a batch, at most.
        batch_pixels: Likewise their pixels, unless one alone has more.
        on_batch: Told of each batch its size and seconds.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[T]], Sequence[R]],
        batch_size: int,
        batch_pixels: int,
        on_batch: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self.compute, self.on_batch = compute, on_batch
        self.batch_size, self.batch_pixels = batch_size, batch_pixels
        self.pace = Pace()
        self.after_s = 0.0
        """What an answer needs after its batch."""
        self._waiting: dict[_Job[T, R], None] = {}
        self._running: tuple[float, float] | None = None
        """When the running batch began, and what it was expected to take."""
        self._came = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "network")
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many wait."""
        return sum(not job.answer.done() for job in self._waiting)

    def start(self) -> None:
        """Begin to compute, within a running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Let the running batch end; what waits is refused."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for job in self._waiting:
            if not job.answer.done():
                job.answer.set_exception(busy(1.0))
        self._waiting.clear()
        self._thread.shutdown()

    def stuck_s(self) -> float:
        """For how long the running batch has taken longer than it should."""
        if self._running is None:
            return 0.0
        began, expected_s = self._running
        return max(time.monotonic() - began - expected_s, 0.0)

    def wait_s(self) -> float:
        """How long a picture that came now would wait for its batch."""
        wanted = [job for job in self._waiting if not job.answer.done()]
        keys = Counter(job.key for job in wanted)
        batches = sum(-(-count // self.batch_size) for count in keys.values())
        left_s = 0.0
        if self._running is not None:
            began, expected_s = self._running
            left_s = max(began + expected_s - time.monotonic(), 0.0)
        return left_s + self.pace.seconds(sum(j.pixels for j in wanted), batches)

    async def measure(self, item: T, pixels: int) -> None:
        """See what batches of an item take, before the first request."""
        loop = asyncio.get_running_loop()
        found = []
        for count in (1, 1, min(FEW, self.batch_size)):
            began = time.monotonic()
            await loop.run_in_executor(self._thread, self.compute, [item] * count)
            found.append((count * pixels, time.monotonic() - began))
        # The first one allocated.
        self.pace.measure(found[1], found[2])

    async def submit(self, key: Hashable, item: T, pixels: int, due: float) -> R:
        """The result of an item.

        Cancelled, it is not computed, if it has not begun.

        Args:
            key: Items of one key may share a batch.
            item: What to compute.
            pixels: What its time goes by.
            due: When its result is needed, on the loop's clock.

        Raises:
            RefusedError: 503 if that cannot be, and others are computed or wait.
        """
        loop = asyncio.get_running_loop()
        if self._running is None and not len(self):
            due = math.inf
        wait_s = self.wait_s()
        own_s = self.pace.seconds(pixels)
        if loop.time() + MARGIN * (wait_s + own_s) + self.after_s > due:
            raise busy(wait_s)
        job = _Job[T, R](key, item, pixels, due, loop.create_future())
        self._waiting[job] = None
        self._came.set()
        return await job.answer

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._came.wait()
            batch = self._next(loop.time())
            if not batch:
                self._came.clear()
                continue
            pixels = sum(job.pixels for job in batch)
            began = time.monotonic()
            self._running = began, MARGIN * self.pace.seconds(pixels)
            work = loop.run_in_executor(self._thread, self._computed, batch)
            try:
                results = await asyncio.shield(work)
            except asyncio.CancelledError:
                _answer(batch, await work)
                raise
            finally:
                self._running = None
            taken = time.monotonic() - began
            self.pace.learn(pixels, taken)
            self.on_batch(len(batch), taken)
            _answer(batch, results)

    def _next(self, now: float) -> list[_Job[T, R]]:
        """The oldest that is still wanted and in time, and those that go with it."""
        batch: list[_Job[T, R]] = []
        pixels = 0
        for job in list(self._waiting):
            if job.answer.done():
                del self._waiting[job]
                continue
            need_s = self.pace.seconds(pixels + job.pixels) + self.after_s
            if now + need_s > job.due:
                if not batch:
                    del self._waiting[job]
                    job.answer.set_exception(busy(self.wait_s()))
                continue
            if batch and (
                job.key != batch[0].key
                or len(batch) == self.batch_size
                or pixels + job.pixels > self.batch_pixels
            ):
                continue
            batch.append(job)
            pixels += job.pixels
        for job in batch:
            del self._waiting[job]
        return batch

    def _computed(self, batch: Sequence[_Job[T, R]]) -> list[R | Exception]:
        """The result of each; what one does to a batch, the others do not suffer."""
        try:
            return list(self.compute([job.item for job in batch]))
        except Exception as error:
            if len(batch) == 1:
                return [error]
        return [result for job in batch for result in self._computed([job])]


def _answer(batch: Sequence[_Job[Any, Any]], results: Sequence[Any]) -> None:
    for job, result in zip(batch, results, strict=True):
        if job.answer.done():
            continue
        if isinstance(result, Exception):
            job.answer.set_exception(
                result if isinstance(result, RefusedError) else _fault(result)
            )
        else:
            job.answer.set_result(result)


def _fault(error: Exception) -> RefusedError:
    return RefusedError(500, f"the network failed ({type(error).__name__}: {error})")
