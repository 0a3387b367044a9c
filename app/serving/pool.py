"""Threads for decoding and encoding, which take no more than they can do in time.

Where they do nothing, they take what comes, for only work tells what work takes.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from app.serving.pace import learned
from app.serving.refusals import busy

R = TypeVar("R")
MEMORY = 0.1
"""Weight of the newest in what one is expected to take: pictures differ in size."""


class Pool:
    """Runs one kind of work.

    Args:
        name: Of its threads.
        threads: How many.
        on_done: Told of the seconds that each piece took, without waiting.
    """

    def __init__(
        self, name: str, threads: int, on_done: Callable[[float], None]
    ) -> None:
        self.threads, self.on_done = threads, on_done
        self.seconds = 0.0
        """What a piece takes, of late; the first one counts as it is."""
        self._pool = ThreadPoolExecutor(threads, name)
        self._waiting = 0

    async def run(self, work: Callable[[], R], due: float) -> R:
        """The result of `work`; cancelled, it is not begun any more.

        Raises:
            RefusedError: 503 if others wait, too, and it could not be done by `due`,
                on the loop's clock.
        """
        loop = asyncio.get_running_loop()
        wait_s = self._waiting * self.seconds / self.threads
        if self._waiting and loop.time() + wait_s + self.seconds > due:
            raise busy(wait_s)
        self._waiting += 1
        try:
            return await loop.run_in_executor(self._pool, self._timed, work)
        finally:
            self._waiting -= 1

    def stop(self) -> None:
        """Let what runs end."""
        self._pool.shutdown(cancel_futures=True)

    def _timed(self, work: Callable[[], R]) -> R:
        began = time.monotonic()
        try:
            return work()
        finally:
            taken = time.monotonic() - began
            old = self.seconds
            self.seconds = learned(old, taken, MEMORY) if old else taken
            self.on_done(taken)
