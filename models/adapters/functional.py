"""The compute core: a frozen layer and its low-rank increment in one operation."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from models.adapters.base import Bottleneck

Convolution = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""A layer's own convolution (x, weight, bias): its stride, padding and dilation."""


def adapted_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, increment: Bottleneck
) -> Tensor:
    """X (W + s up down)^T + b without forming the increment.

    Args:
        x: (..., in).
        weight: (out, in), frozen.
        bias: (out,) or None.
        increment: Its `down` is (r, in).
    """
    down, up, scale = increment
    thin = F.linear(x, down.to(x.dtype))
    return F.linear(x, weight, bias) + F.linear(thin, (scale * up).to(x.dtype))


def adapted_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    increment: Bottleneck,
    convolve: Convolution,
) -> Tensor:
    """Convolution with W + s up down, without forming the increment.

    It runs as the layer's own convolution onto r channels and a 1x1 one.

    Args:
        x: (B, in, H, W).
        weight: (out, in, kh, kw), frozen, one group.
        bias: (out,) or None.
        increment: Its `down` is (r, in, kh, kw).
        convolve: The layer's own geometry.
    """
    down, up, scale = increment
    thin = convolve(x, down.to(x.dtype), None)
    pointwise = (scale * up).to(x.dtype)[:, :, None, None]
    return convolve(x, weight, bias) + F.conv2d(thin, pointwise)
