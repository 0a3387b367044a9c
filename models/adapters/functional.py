"""The compute core: a frozen layer and its low-rank increment in one operation.

With V = W + up . down (the method's scale already in `up`) and an optional gain per
output, y = gain * (x V) + b. One linear and one convolution serve every low-rank
method; DoRA is the one with a gain. Each has a backward of its own that

- keeps only x for backward (and thin, the r channels between down and up; with a gain
  also y, which the next layer mostly keeps anyway),
- never forms the dense gradient of W, which autograd would for W + up . down,
- never makes a second full-size output.

Two paths compute the same numbers. *Hybrid* adds up . down to W and runs one
operation; the factors' gradients come from r-channel products. It costs
2 r (N (i + o) + 2 i o) more than the frozen layer, *factored* 6 r N (i + o) and some
passes over the output (reference: RunLoRA, Cherniuk et al. 2023, forward 2 with
backward 5). Hybrid rounds W + dW to the compute dtype, which would lose most of a small
increment in bfloat16, so it is taken in true float32 only and where there are enough
rows to pay for two passes over the weight.
"""

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.adapters.base import Bottleneck

Path = Literal["auto", "factored", "hybrid", "reference"]
"""`reference` is plain autograd, what the other paths are tested against."""

CONV_REUSE = 1.5
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


def adapted_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    increment: Bottleneck,
    gain: Tensor | None = None,
    path: Path = "auto",
) -> Tensor:
    """y = gain * (x (W + s up down)^T) + b.

    Args:
        x: (..., in).
        weight: (out, in), frozen; a weight that wants a gradient takes the reference.
        bias: (out,) or None.
        increment: Its `down` is (r, in), its `up` (out, r).
        gain: (out,) or None.
        path: How; `auto` decides by the module's cost rule.
    """
    dtype = _compute_dtype(x)
    x, down, gain = x.to(dtype), increment.down.to(dtype), _to(gain, dtype)
    up = (increment.scale * increment.up).to(dtype)
    if path == "reference" or weight.requires_grad:
        y = F.linear(x, weight.to(dtype)) + F.linear(F.linear(x, down), up)
        y = y if gain is None else y * gain
        return y if bias is None else y + bias.to(dtype)
    rows, (out, inner) = x.numel() // max(x.shape[-1], 1), weight.shape
    if path == "auto":
        pays = rows * (out + inner) > 2 * out * inner
        path = "hybrid" if pays and _is_exact(x) else "factored"
    flat: Tensor = _Linear.apply(
        x.reshape(-1, inner), weight, bias, down, up, gain, path == "hybrid"
    )
    return flat.view(*x.shape[:-1], out)


def adapted_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    increment: Bottleneck,
    geometry: Geometry,
    gain: Tensor | None = None,
    path: Path = "auto",
) -> Tensor:
    """Convolution, transposed or not, with gain * (W + s up down), one group.

    Args:
        x: (B, in, *space), padded already where the padding mode is not zeros.
        weight: (out, in, *kernel), or (in, out, *kernel) if transposed; frozen.
        bias: (out,) or None.
        increment: Its `down` is (r, in, *kernel), its `up` (out, r).
        geometry: The layer's own.
        gain: (out,) or None.
        path: How; `auto` decides by the module's cost rule.
    """
    dtype = _compute_dtype(x)
    x, gain = x.to(dtype), _to(gain, dtype)
    up = (increment.scale * increment.up).to(dtype)
    down = increment.down.to(dtype)
    if geometry.transposed:
        down = down.transpose(0, 1)
    if path == "reference" or weight.requires_grad:
        thin = geometry(x, down, None)
        y = geometry(x, weight.to(dtype), None) + _pointwise(thin, up)
        y = y if gain is None else y * _channels(gain, y)
        return y if bias is None else y + _channels(bias.to(dtype), y)
    if path == "auto":
        # Positions at which the kernel is applied: outputs, or inputs if transposed.
        positions = x.numel() // x.shape[1]
        if not geometry.transposed:
            positions //= max(math.prod(geometry.stride), 1)
        thin_size = positions * (weight.shape[0] + weight.shape[1])
        pays = thin_size > CONV_REUSE * weight.numel()
        path = "hybrid" if pays and _is_exact(x, convolves=True) else "factored"
    convolved: Tensor = _Conv.apply(
        x, weight, bias, down, up, gain, geometry, path == "hybrid"
    )
    return convolved


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        gain: Tensor | None,
        hybrid: bool,
    ) -> Tensor:
        w = weight.to(x.dtype)
        bias_ = _to(bias, x.dtype)
        thin = None
        if hybrid:
            w = torch.addmm(w, up, down)
            if gain is not None:
                w.mul_(gain[:, None])
            y = F.linear(x, w, bias_)
        else:
            thin = x @ down.mT
            y = F.linear(x, w, bias_ if gain is None else None)
            y = _add_product(y, thin, up.mT)
            if gain is not None:
                y = _scale_and_shift(y, gain, bias_)
        ctx.hybrid = hybrid
        kept = None if gain is None else y
        ctx.save_for_backward(x, weight, bias, down, up, gain, thin, kept)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, down, up, gain, thin, y = ctx.saved_tensors
        to_x, _, to_bias, to_down, to_up, to_gain, _ = ctx.needs_input_grad
        scaled_up = up if gain is None else up * gain[:, None]
        grad_thin = grad @ scaled_up

        grad_x = None
        if to_x:
            w = weight.to(x.dtype)
            if ctx.hybrid:
                w = torch.addmm(w, up, down)
            if gain is not None:
                w = w * gain[:, None]
            grad_x = grad @ w
            if not ctx.hybrid:
                grad_x = grad_x.addmm_(grad_thin, down)
        grad_up = None
        if to_up:
            if thin is None or torch.is_grad_enabled():
                # A second derivative must see what thin depends on.
                thin = x @ down.mT
            # (r, N) @ (N, out): the transposed product reads the large operand row
            # by row and was ten times faster on a CPU at 8192 x 4096.
            grad_up = (thin.mT @ grad).mT
            if gain is not None:
                grad_up = grad_up * gain[:, None]
        grad_down = grad_thin.mT @ x if to_down else None
        grad_gain = None
        if to_gain:
            grad_gain = _gain_gradient(grad, y, bias, gain)
        grad_bias = grad.sum(0) if to_bias else None
        return grad_x, None, grad_bias, grad_down, grad_up, grad_gain, None


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        gain: Tensor | None,
        geometry: Geometry,
        hybrid: bool,
    ) -> Tensor:
        w = weight.to(x.dtype)
        bias_ = _to(bias, x.dtype)
        thin = None
        if hybrid:
            w = w + _dense(up, down, geometry.transposed)
            if gain is not None:
                w.mul_(_along_out(gain, w, geometry.transposed))
            y = geometry(x, w, bias_)
        else:
            thin = geometry(x, down, None)
            y = geometry(x, w, bias_ if gain is None else None)
            y = _add_pointwise(y, thin, up)
            if gain is not None:
                shift = None if bias_ is None else _channels(bias_, y)
                y = _scale_and_shift(y, _channels(gain, y), shift)
        ctx.geometry, ctx.hybrid = geometry, hybrid
        kept = None if gain is None else y
        ctx.save_for_backward(x, weight, bias, down, up, gain, thin, kept)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, down, up, gain, thin, y = ctx.saved_tensors
        geometry: Geometry = ctx.geometry
        to_x, _, to_bias, to_down, to_up, to_gain, _, _ = ctx.needs_input_grad
        scaled_up = up if gain is None else up * gain[:, None]
        grad_thin = _pointwise(grad, scaled_up.mT)

        through_thin, grad_down = geometry.gradients(
            grad_thin, x, down, to_x=to_x and not ctx.hybrid, to_weight=to_down
        )
        grad_x = None
        if to_x:
            w = weight.to(x.dtype)
            if ctx.hybrid:
                w = w + _dense(up, down, geometry.transposed)
            if gain is not None:
                w = w * _along_out(gain, w, geometry.transposed)
            grad_x, _ = geometry.gradients(grad, x, w, to_x=True, to_weight=False)
            if through_thin is not None and grad_x is not None:
                grad_x = grad_x + through_thin
        grad_up = None
        if to_up:
            if thin is None or torch.is_grad_enabled():
                thin = geometry(x, down, None)
            grad_up = _pointwise_gradient(grad, thin)
            if gain is not None:
                grad_up = grad_up * gain[:, None]
        grad_gain = None
        if to_gain:
            grad_gain = _gain_gradient(grad, y, bias, gain)
        grad_bias = grad.flatten(2).sum((0, 2)) if to_bias else None
        return grad_x, None, grad_bias, grad_down, grad_up, grad_gain, None, None


def _gain_gradient(
    grad: Tensor, y: Tensor, bias: Tensor | None, gain: Tensor
) -> Tensor:
    """Gradient towards the gain, from the output itself: d y / d gain = (y - b) / gain.

    Zero where the gain is zero: the output no longer tells what it was multiplied with.
    """
    # vecdot, unlike a product and a sum, writes no third array of the output's size.
    if grad.ndim == 2:
        total, summed = torch.linalg.vecdot(grad, y, dim=0), grad.sum(0)
    else:
        total = torch.linalg.vecdot(grad.flatten(2), y.flatten(2)).sum(0)
        summed = grad.flatten(2).sum((0, 2))
    if bias is not None:
        total = total - bias.to(y.dtype) * summed
    return torch.where(gain == 0, 0, total / torch.where(gain == 0, 1, gain))


def _dense(up: Tensor, down: Tensor, transposed: bool) -> Tensor:
    """up . down in the stored layout of a convolution's weight."""
    if transposed:
        inner, rank, *kernel = down.shape
        flat = down.reshape(inner, rank, -1)
        return torch.einsum("or,irk->iok", up, flat).reshape(inner, len(up), *kernel)
    return (up @ down.flatten(1)).view(len(up), *down.shape[1:])


def _pointwise(x: Tensor, matrix: Tensor) -> Tensor:
    """1x1 convolution of x (B, C, *space) with a matrix (out, C)."""
    axes = x.ndim - 2
    ones, zeros = (1,) * axes, (0,) * axes
    return Geometry(ones, zeros, ones)(x, matrix.view(*matrix.shape, *ones), None)


def _pointwise_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient (out, C) of `_pointwise` towards its matrix."""
    axes = x.ndim - 2
    ones, zeros = (1,) * axes, (0,) * axes
    matrix = x.new_empty(grad.shape[1], x.shape[1], *ones)
    _, gradient = Geometry(ones, zeros, ones).gradients(
        grad, x, matrix, to_x=False, to_weight=True
    )
    assert gradient is not None
    return gradient.view(grad.shape[1], x.shape[1])


def _add_product(y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """y + a b, in place outside a compiled graph.

    Compilers find such places themselves, and dynamo of torch 2.11 loses a write into
    a tensor that a custom function is about to return.
    """
    if torch.compiler.is_compiling():
        return torch.addmm(y, a, b)
    return y.addmm_(a, b)


def _scale_and_shift(y: Tensor, gain: Tensor, shift: Tensor | None) -> Tensor:
    """gain * y + shift, in place outside a compiled graph."""
    if torch.compiler.is_compiling():
        return y * gain if shift is None else y * gain + shift
    y.mul_(gain)
    return y if shift is None else y.add_(shift)


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


def _along_out(values: Tensor, weight: Tensor, transposed: bool) -> Tensor:
    ones = [1] * (weight.ndim - 2)
    return values.view(1, -1, *ones) if transposed else values.view(-1, 1, *ones)


def _compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype that the layer itself would compute in, under autocast or without."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def _is_exact(x: Tensor, *, convolves: bool = False) -> bool:
    """Whether W + dW keeps a small dW: float64, or float32 that is not TF32."""
    if x.dtype == torch.float64:
        return True
    return x.dtype == torch.float32 and _float32_is_exact(x.is_cuda and convolves)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _float32_is_exact(by_cudnn: bool) -> bool:
    # cuDNN's convolutions use TF32 by default, matrix products do not.
    if by_cudnn and torch.backends.cudnn.allow_tf32:
        return False
    return torch.get_float32_matmul_precision() == "highest"


def _to(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)
