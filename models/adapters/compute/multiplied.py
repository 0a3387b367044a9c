"""The compute core of multiplicative adapters: out o ((into o x) W) + bias.

One product with the base's own weight, so neither W' nor a dense gradient of W is ever
formed (Wen and Chaudhuri, Fast LoRA, 2024, equation 6). Factors of one vector a layer
serve a whole batch, of one vector an example each example by its own.
"""

from collections.abc import Callable

from torch import Tensor

from models.adapters.base import Multiplied
from models.adapters.compute.linear import cast, compute_dtype

Product = Callable[[Tensor], Tensor]
"""The frozen layer without its bias."""


def multiplied(
    x: Tensor,
    product: Product,
    bias: Tensor | None,
    factors: Multiplied,
    axis: int,
) -> Tensor:
    """out o ((into o x) W) + bias.

    Args:
        x: Channels along `axis`.
        product: By the frozen weight, in the dtype of what it is given.
        bias: (out,) or None.
        factors: (out,) and (in,); or (B, out) and (B, in), one an example of x.
        axis: 1 for a convolution, -1 for a matrix.
    """
    x = x.to(compute_dtype(x))
    y = product(x * _along(factors.into, x, axis))
    y = y * _along(factors.out, y, axis)
    bias = cast(bias, y.dtype)
    return y if bias is None else y + _along(bias, y, axis)


def _along(values: Tensor, x: Tensor, axis: int) -> Tensor:
    """Values (C,) or (B, C) beside x, repeated where x has several groups of C."""
    channels = x.shape[axis]
    values = values.to(x.dtype)
    if values.shape[-1] != channels:
        values = values.repeat(*[1] * (values.ndim - 1), channels // values.shape[-1])
    ones = [1] * (x.ndim - 2)
    examples = [len(values)] if values.ndim == 2 else [1] * (x.ndim > 1)
    if axis == 1:
        return values.view(*examples, channels, *ones)
    return values.view(*examples, *ones, channels)
