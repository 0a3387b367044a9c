"""The compute core: a frozen layer and its low-rank increment in one operation.

With V = W + up . down (the method's scale already in `up`) and an optional gain per
output, y = gain * (x V) + b. One linear, here, and one convolution (`convolution.py`)
serve every low-rank method; DoRA is the one with a gain. Each has a backward of its own
that

- keeps only x for backward, and thin, the r channels between down and up,
- never forms the dense gradient of W, which autograd would for W + up . down,
- never makes a second full-size output, unless there is a gain that is trained.

A trained gain needs the product x V itself for its gradient, sum over the rows of
grad * (x V), and has it kept. (y - b) / gain is the same number on paper, but y is
rounded beside b (in bfloat16 nothing is left of x V below b / 256), is 0 where the
gain is, and is gone once an activation has worked in place. Thin pieces do not give it
either: it is the row sums of (grad^T x) * V, as dear as another layer.

Two paths compute the same numbers. *Hybrid* adds up . down to W and runs one
operation; the factors' gradients come from r-channel products. It costs
2 r (N (i + o) + 2 i o) more than the frozen layer, *factored* 6 r N (i + o) and some
passes over the output (reference: RunLoRA, Cherniuk et al. 2023, forward 2 with
backward 5). Hybrid rounds W + dW to the compute dtype, which would lose most of a small
increment in bfloat16, so it is taken in true float32 only and where there are enough
rows to pay for the passes over the weight.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from models.adapters.base import Bottleneck

Path = Literal["auto", "factored", "hybrid", "reference"]
"""`reference` is plain autograd, what the other paths are tested against."""


def adapted_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    increment: Bottleneck,
    gain: Tensor | None = None,
    path: Path = "auto",
    dropped: Tensor | None = None,
) -> Tensor:
    """y = gain * (x (W + s up down)^T) + b.

    Args:
        x: (..., in).
        weight: (out, in), frozen; a weight that wants a gradient takes the reference.
        bias: (out,) or None.
        increment: Its `down` is (r, in), its `up` (out, r).
        gain: (out,) or None.
        path: How; `auto` decides by the module's cost rule.
        dropped: What the increment sees in place of x; takes the reference.
    """
    dtype = compute_dtype(x)
    x, down, gain = x.to(dtype), increment.down.to(dtype), cast(gain, dtype)
    up = (increment.scale * increment.up).to(dtype)
    by_autograd = weight.requires_grad or dropped is not None or transformed()
    if path == "reference" or by_autograd:
        inner = x if dropped is None else dropped.to(dtype)
        y = F.linear(x, weight.to(dtype)) + F.linear(F.linear(inner, down), up)
        y = y if gain is None else y * gain
        return y if bias is None else y + bias.to(dtype)
    rows, (out, into) = x.numel() // max(x.shape[-1], 1), weight.shape
    if path == "auto":
        pays = hybrid_pays(rows, weight) and keeps_increment(x)
        path = "hybrid" if pays else "factored"
    flat: Tensor = _Linear.apply(
        x.reshape(-1, into), weight, bias, down, up, gain, path == "hybrid"
    )
    return flat.view(*x.shape[:-1], out)


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
        bias_ = cast(bias, x.dtype)
        first = bias_ if gain is None else None
        thin = None
        if hybrid:
            y = F.linear(x, torch.addmm(w, up, down), first)
        else:
            thin = thin_product(x, down)
            y = add_product(F.linear(x, w, first), thin, up.mT)
        product = y if ctx.needs_input_grad[5] else None
        if gain is not None:
            y = scale_and_shift(y, gain, bias_)
        ctx.hybrid = hybrid
        ctx.save_for_backward(x, weight, down, up, gain, thin, product)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, down, up, gain, thin, product = ctx.saved_tensors
        to_x, _, to_bias, to_down, to_up, to_gain, _ = ctx.needs_input_grad
        scaled_up = up if gain is None else up * gain[:, None]
        grad_thin = thin_product(grad, scaled_up.mT)

        grad_x = None
        if to_x:
            w = weight.to(x.dtype)
            if ctx.hybrid:
                w = torch.addmm(w, up, down)
            if gain is not None:
                w = w.mul_(gain[:, None]) if ctx.hybrid else w * gain[:, None]
            grad_x = grad @ w
            if not ctx.hybrid:
                grad_x = grad_x.addmm_(grad_thin, down)
        grad_up = None
        again = torch.is_grad_enabled()
        if to_up:
            if thin is None or again:
                # A second derivative must see what thin depends on.
                thin = thin_product(x, down)
            grad_up = (thin.mT @ grad).mT
            if gain is not None:
                grad_up = grad_up * gain[:, None]
        grad_down = grad_thin.mT @ x if to_down else None
        grad_gain = None
        if to_gain:
            if again:
                product = F.linear(x, torch.addmm(weight.to(x.dtype), up, down))
            grad_gain = gain_gradient(grad, product)
        grad_bias = grad.sum(0) if to_bias else None
        return grad_x, None, grad_bias, grad_down, grad_up, grad_gain, None


def thin_product(x: Tensor, down: Tensor) -> Tensor:
    """x (N, i) times down (r, i) transposed, (N, r).

    As (down x^T)^T; the factors' gradients likewise start from the few rows of r. Then
    the large operand is read row by row, and by all threads: on a CPU x down^T took
    four times as long for 1037 x 1536 with one thread, ten times with four.
    """
    return (down @ x.mT).mT


def gain_gradient(grad: Tensor, product: Tensor) -> Tensor:
    """Gradient (out,) towards the gain: the sum of grad * product over all but axis 1.

    The sum is float32 at least: a bfloat16 one would round the total once more.
    """
    wide = torch.promote_types(grad.dtype, torch.float32)
    return (grad * product).sum([0, *range(2, grad.ndim)], dtype=wide)


def hybrid_pays(rows: int, weight: Tensor) -> bool:
    """Whether passes over W (out, in) are fewer than those over the rows.

    Forming W + dW takes one over W, and a second one in backward; the thin term takes
    one over the rows' inputs and outputs.
    """
    passes = 2 if torch.is_grad_enabled() else 1
    return rows * sum(weight.shape) > passes * weight.numel()


def add_product(y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """y + a b, in place outside a compiled graph.

    Compilers find such places themselves, and dynamo of torch 2.11 loses a write into
    a tensor that a custom function is about to return.
    """
    if torch.compiler.is_compiling():
        return torch.addmm(y, a, b)
    return y.addmm_(a, b)


def scale_and_shift(y: Tensor, gain: Tensor, shift: Tensor | None) -> Tensor:
    """gain * y + shift, a new tensor: y may be kept for backward."""
    return y * gain if shift is None else torch.addcmul(shift, y, gain)


def transformed() -> bool:
    """Whether a transform of `torch.func` is at work; those need plain autograd."""
    active: bool = torch._C._are_functorch_transforms_active()
    return active


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype that the layer itself would compute in, under autocast or without."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def keeps_increment(x: Tensor, *, convolves: bool = False) -> bool:
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


def cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """`tensor.to(dtype)`, or None for None."""
    return None if tensor is None else tensor.to(dtype)
