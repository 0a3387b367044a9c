"""Memory bounded by pixels, not by the number of pictures."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class PixelBudget:
    """Lets threads go on while their pictures fit; a larger one goes on alone.

    Args:
        pixels: Of all pictures that are worked on at one time.
    """

    def __init__(self, pixels: int) -> None:
        self.pixels = self._free = pixels
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Wait until a picture fits, and take its pixels while the block runs."""
        share = min(pixels, self.pixels)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= share)
            self._free -= share
        try:
            yield
        finally:
            with self._changed:
                self._free += share
                self._changed.notify_all()
