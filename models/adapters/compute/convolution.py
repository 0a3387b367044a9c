"""The compute core's convolution: `linear.py` says what both have in common.

An increment may come with a core (Lava, Tucker): its r channels are then made by a
pointwise map into r2 channels and a small, for Lava depthwise, kernel over those.
Beside one kernel of r x in channels, as LoRA has, that is a fraction of the products
(in + k^2 in place of in k^2 per channel), and libraries run kernels with as few as r
outputs badly: at 64 channels on one CPU thread LoRA's r channels took 40 % of the
frozen convolution's own time, Lava's 7 %.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.adapters.base import Bottleneck, core_down
from models.adapters.compute.linear import (
    Path,
    cast,
    compute_dtype,
    gain_gradient,
    keeps_increment,
    scale_and_shift,
    transformed,
)

HYBRID_REUSE = 1.5
"""Passes over the kernel that a hybrid convolution must earn back, measured."""


class Geometry(NamedTuple):
    """A convolution's own geometry, one number per spatial axis."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool = False
    output_padding: tuple[int, ...] = ()
    groups: int = 1

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve x (B, C, *space) with a weight in stored layout."""
        y: Tensor = torch.ops.aten.convolution.default(
            x, weight, bias, *self._arguments(weight)
        )
        return y

    def gradients(
        self, grad: Tensor, x: Tensor, weight: Tensor, *, to_x: bool, to_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients towards x and weight of `self(x, weight, None)`."""
        to_x_, to_weight_, _ = torch.ops.aten.convolution_backward.default(
            grad,
            x,
            weight,
            None,
            *self._arguments(weight),
            [to_x, to_weight, False],
        )
        return to_x_, to_weight_

    def _arguments(self, weight: Tensor) -> tuple[Any, ...]:
        axes = weight.ndim - 2
        output_padding = self.output_padding or (0,) * axes
        return (
            self.stride,
            self.padding,
            self.dilation,
            self.transposed,
            output_padding,
            self.groups,
        )


def adapted_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    increment: Bottleneck,
    geometry: Geometry,
    gain: Tensor | None = None,
    path: Path = "auto",
    dropped: Tensor | None = None,
) -> Tensor:
    """Convolution, transposed or not, with gain * (W + s up core down), one group.

    Args:
        x: (B, in, *space), padded already where the padding mode is not zeros.
        weight: (out, in, *kernel), or (in, out, *kernel) if transposed; frozen.
        bias: (out,) or None.
        increment: Its `down` is (r, in, *kernel), or (r2, in) before a core.
        geometry: The layer's own.
        gain: (out,) or None.
        path: How; `auto` decides by the module's cost rule.
        dropped: What the increment sees in place of x; takes the reference.
    """
    dtype = compute_dtype(x)
    x, gain = x.to(dtype), cast(gain, dtype)
    up = (increment.scale * increment.up).to(dtype)
    into: Tensor | None = None
    kernel = increment.down.to(dtype)
    if increment.core is not None:
        into, kernel = kernel, increment.core.to(dtype)
    by_autograd = weight.requires_grad or dropped is not None or transformed()
    if path == "reference" or by_autograd:
        inner = x if dropped is None else dropped.to(dtype)
        mid = inner if into is None else _pointwise(inner, into)
        spatial = _spatial(geometry, into, kernel)
        thin = spatial(mid, _stored(spatial, kernel), None)
        y = geometry(x, weight.to(dtype), None) + _pointwise(thin, up)
        y = y if gain is None else y * _channels(gain, y)
        return y if bias is None else y + _channels(bias.to(dtype), y)
    if path == "auto":
        # Positions at which the kernel is applied: outputs, or inputs if transposed.
        positions = len(x) * math.prod(x.shape[2:])
        if not geometry.transposed:
            positions //= max(math.prod(geometry.stride), 1)
        thin_size = positions * (weight.shape[0] + weight.shape[1])
        pays = thin_size > HYBRID_REUSE * weight.numel()
        exact = keeps_increment(x, convolves=True)
        path = "hybrid" if pays and exact else "factored"
    convolved: Tensor = _Conv.apply(
        x, weight, bias, into, kernel, up, gain, geometry, path == "hybrid"
    )
    return convolved


class _Conv(torch.autograd.Function):
    """`into` (r2, in), kernel (r, r2 / groups, *kernel); or None, (r, in, *kernel)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        into: Tensor | None,
        kernel: Tensor,
        up: Tensor,
        gain: Tensor | None,
        geometry: Geometry,
        hybrid: bool,
    ) -> Tensor:
        w = weight.to(x.dtype)
        bias_ = cast(bias, x.dtype)
        first = bias_ if gain is None else None
        thin = None
        if hybrid:
            y = geometry(x, w + _dense(geometry, up, kernel, into), first)
        else:
            mid = x if into is None else _pointwise(x, into)
            spatial = _spatial(geometry, into, kernel)
            thin = spatial(mid, _stored(spatial, kernel), None)
            y = _add_pointwise(geometry(x, w, first), thin, up)
        product = y if ctx.needs_input_grad[6] else None
        if gain is not None:
            shift = None if bias_ is None else _channels(bias_, y)
            y = scale_and_shift(y, _channels(gain, y), shift)
        ctx.geometry, ctx.hybrid = geometry, hybrid
        ctx.save_for_backward(x, weight, into, kernel, up, gain, thin, product)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, into, kernel, up, gain, thin, product = ctx.saved_tensors
        geometry: Geometry = ctx.geometry
        wanted = ctx.needs_input_grad
        to_x, to_bias, to_into, to_kernel, to_up, to_gain = (
            wanted[i] for i in (0, 2, 3, 4, 5, 6)
        )
        spatial = _spatial(geometry, into, kernel)
        stored = _stored(spatial, kernel)
        through_thin = to_x and not ctx.hybrid

        scaled_up = up if gain is None else up * gain[:, None]
        grad_thin = _pointwise(grad, scaled_up.mT)
        mid = x if into is None else _pointwise(x, into)
        to_mid = through_thin if into is None else to_into or through_thin
        grad_mid, grad_kernel = spatial.gradients(
            grad_thin, mid, stored, to_x=to_mid, to_weight=to_kernel
        )
        if grad_kernel is not None:
            grad_kernel = _stored(spatial, grad_kernel)
        grad_into = None
        if into is not None and grad_mid is not None:
            grad_into = _pointwise_gradient(grad_mid, x)

        grad_x = None
        if to_x:
            w = weight.to(x.dtype)
            if ctx.hybrid:
                w = w + _dense(geometry, up, kernel, into)
            if gain is not None:
                w = w * _along_out(geometry, gain, w)
            grad_x, _ = geometry.gradients(grad, x, w, to_x=True, to_weight=False)
            if through_thin and grad_x is not None and grad_mid is not None:
                more = grad_mid if into is None else _pointwise(grad_mid, into.mT)
                grad_x = grad_x + more
        grad_up = None
        again = torch.is_grad_enabled()
        if to_up:
            if thin is None or again:
                # A second derivative must see what thin depends on.
                thin = spatial(mid, stored, None)
            grad_up = _pointwise_gradient(grad, thin)
            if gain is not None:
                grad_up = grad_up * gain[:, None]
        grad_gain = None
        if to_gain:
            if again:
                dense = _dense(geometry, up, kernel, into)
                product = geometry(x, weight.to(x.dtype) + dense, None)
            grad_gain = gain_gradient(grad, product)
        grad_bias = grad.flatten(2).sum((0, 2)) if to_bias else None
        factors = (grad_into, grad_kernel, grad_up, grad_gain)
        return grad_x, None, grad_bias, *factors, None, None


def _spatial(geometry: Geometry, into: Tensor | None, kernel: Tensor) -> Geometry:
    """The layer's geometry for the r channels: grouped where the core is diagonal."""
    groups = 1 if into is None else len(into) // kernel.shape[1]
    return geometry._replace(groups=groups)


def _stored(spatial: Geometry, kernel: Tensor) -> Tensor:
    """A kernel (r, r2 / groups, *kernel) as its convolution stores it; an involution.

    Of a diagonal core, (r, 1, *kernel), a transposed convolution stores the same.
    """
    swapped = spatial.transposed and spatial.groups == 1
    return kernel.transpose(0, 1) if swapped else kernel


def _dense(
    geometry: Geometry, up: Tensor, kernel: Tensor, into: Tensor | None
) -> Tensor:
    """up . core . down in the stored layout of the convolution's weight."""
    down = kernel if into is None else core_down(kernel, into)
    dense = (up @ down.flatten(1)).view(len(up), *down.shape[1:])
    return dense.transpose(0, 1) if geometry.transposed else dense


def _pointwise(x: Tensor, matrix: Tensor) -> Tensor:
    """1x1 convolution of x (B, C, *space) with a matrix (out, C).

    Where space lies together it is one product per image: with few channels two to four
    times as fast as a CPU's convolution.
    """
    if x.is_contiguous():
        batch = matrix.expand(len(x), *matrix.shape)
        return torch.bmm(batch, x.flatten(2)).view(len(x), len(matrix), *x.shape[2:])
    axes = x.ndim - 2
    ones, zeros = (1,) * axes, (0,) * axes
    return Geometry(ones, zeros, ones)(x, matrix.view(*matrix.shape, *ones), None)


def _pointwise_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient (out, C) of `_pointwise` towards its matrix."""
    if grad.is_contiguous() and x.is_contiguous():
        few, many = sorted((grad.flatten(2), x.flatten(2)), key=lambda t: t.shape[1])
        product = torch.bmm(few, many.mT).sum(0)
        return product if few.shape[1] == grad.shape[1] else product.mT
    axes = x.ndim - 2
    ones, zeros = (1,) * axes, (0,) * axes
    matrix = x.new_empty(grad.shape[1], x.shape[1], *ones)
    _, gradient = Geometry(ones, zeros, ones).gradients(
        grad, x, matrix, to_x=False, to_weight=True
    )
    assert gradient is not None
    return gradient.view(grad.shape[1], x.shape[1])


def _add_pointwise(y: Tensor, x: Tensor, matrix: Tensor) -> Tensor:
    """y + 1x1 convolution of x, in place where the memory layout lets it."""
    last = y.movedim(1, -1)
    if torch.compiler.is_compiling():
        y = y + _pointwise(x, matrix)
    elif last.is_contiguous():
        rows = x.movedim(1, -1).reshape(-1, x.shape[1])
        last.view(-1, y.shape[1]).addmm_(rows, matrix.mT)
    elif y.is_contiguous():
        batch = matrix.expand(len(y), *matrix.shape)
        y.flatten(2).baddbmm_(batch, x.flatten(2))
    else:
        y.add_(_pointwise(x, matrix))
    return y


def _channels(values: Tensor, y: Tensor) -> Tensor:
    return values.view(-1, *[1] * (y.ndim - 2))


def _along_out(geometry: Geometry, values: Tensor, weight: Tensor) -> Tensor:
    ones = [1] * (weight.ndim - 2)
    axes = (1, -1) if geometry.transposed else (-1, 1)
    return values.view(*axes, *ones)
