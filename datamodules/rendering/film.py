"""What a camera makes of light: lens, exposure, noise, and its file's compression."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Rng = np.random.Generator


@dataclass(frozen=True)
class Film:
    """Ranges that each picture's faults are drawn from, uniformly."""

    exposure: tuple[float, float] = (-0.8, 1.3)
    """Stops off the middle, where the mean is a grey of 0.16."""
    balance: float = 0.12
    """Spread of the factors on red and blue."""
    contrast: tuple[float, float] = (0.95, 1.8)
    blur_px: tuple[float, float] = (0.25, 0.75)
    vignette: tuple[float, float] = (0.0, 0.45)
    """What the corners lose."""
    noise: tuple[float, float] = (0.0, 0.035)
    jpeg: tuple[int, int] = (45, 98)
    """Quality."""
    saturation: tuple[float, float] = (0.6, 1.6)
    """0 is grey, 1 leaves colours as they are."""


def expose(light: Floats, film: Film, rng: Rng) -> NDArray[np.uint8]:
    """A picture (H, W, 3) of linear light (H, W, 3)."""
    rows, cols = light.shape[:2]
    balance = np.exp(rng.normal(0, film.balance, 3)).astype(np.float32)
    balance[1] = 1
    # The logarithmic mean: a bright window does not make a room dark.
    middle = np.exp(np.log(light.mean(-1) + 1e-3).mean())
    stops = rng.uniform(*film.exposure)
    light = light * (balance * np.float32(0.16 * 2**stops / middle))
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : cols * 1j]
    fall = 1 - rng.uniform(*film.vignette) * (x**2 + y**2) / 2
    light = light * fall[..., None].astype(np.float32)
    light = np.asarray(cv2.GaussianBlur(light, (0, 0), rng.uniform(*film.blur_px)))
    noise = rng.uniform(*film.noise)
    grain = rng.standard_normal(light.shape, np.float32)
    light = light + noise * np.sqrt(np.maximum(light, 0) * 0.5 + 0.02) * grain
    # A shoulder in place of a hard end: bright windows do not become flat at once.
    light = np.maximum(light, 0)
    shown = light * (1 + light / 4) / (1 + light / 2)
    encoded = np.clip(shown, 0, 1) ** np.float32(1 / 2.2)
    encoded = np.clip(0.5 + (encoded - 0.5) * rng.uniform(*film.contrast), 0, 1)
    grey = encoded.mean(-1, keepdims=True)
    encoded = np.clip(grey + (encoded - grey) * rng.uniform(*film.saturation), 0, 1)
    picture = (encoded * 255 + 0.5).astype(np.uint8)
    quality = int(rng.integers(film.jpeg[0], film.jpeg[1] + 1))
    _, packed = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    unpacked = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    return np.asarray(unpacked, np.uint8)
