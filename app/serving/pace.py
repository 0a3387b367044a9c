"""What a batch is expected to take, from what batches took."""

MEMORY = 0.3
"""Weight of the newest batch."""
MOST = 2.0
"""By what factor one batch, or one piece of work, may raise what is expected of the
next: a single slow one says little about those that follow."""


class Pace:
    """Seconds of a batch: a part that every batch has, and one for each pixel.

    On a GPU the first counts, on a CPU the second. Their ratio is measured once; how
    fast the machine is beside that, whatever else it does, is learned all the time.
    """

    def __init__(self) -> None:
        self.batch_s = self.pixel_s = 0.0
        self._factor = 1.0

    def measure(self, small: tuple[int, float], large: tuple[int, float]) -> None:
        """Begin with two batches: pixels and seconds of each."""
        (pixels, seconds), (more_pixels, longer) = small, large
        slope = (longer - seconds) / max(more_pixels - pixels, 1)
        # Neither part can be negative, whatever the clock said.
        self.pixel_s = min(max(slope, 0.0), seconds / pixels)
        self.batch_s = seconds - self.pixel_s * pixels
        self._factor = 1.0

    def learn(self, pixels: int, seconds: float) -> None:
        """Take in what a batch took."""
        expected = self.batch_s + self.pixel_s * pixels
        if expected > 0:
            self._factor = learned(self._factor, seconds / expected, MEMORY)

    def seconds(self, pixels: int, batches: int = 1) -> float:
        """What so many pixels in so many batches take."""
        return self._factor * (batches * self.batch_s + self.pixel_s * pixels)


def learned(old: float, newest: float, weight: float) -> float:
    """What is expected after one more observation."""
    return min(old + weight * (newest - old), MOST * old)
