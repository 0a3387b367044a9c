"""The compute core's linear for a batch whose examples have adapters of their own.

Examples of one adapter form a segment. A segment takes the path that it would take
alone, by the same rule (`linear.py`): in true float32 and with rows enough *hybrid*,
one product with W + dW, which is formed once however many examples share it; else
*factored*, where one product with W serves all segments and each adds its own thin
term. Where every segment is factored, as always in bfloat16, float16 and TF32, the
factors are gathered by example, and two batched products do for all (*gathered*).

Backward is its own for the same reasons as there: x is held once, W never gets a dense
gradient, W + dW is formed again once a segment, and an adapter's gradient is one sum
over its examples. Results are written where they belong in one output: a
concatenation of segments would be one more pass over it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.adapters.base import Bottleneck, Multiplied
from models.adapters.compute.linear import (
    cast,
    compute_dtype,
    hybrid_pays,
    keeps_increment,
)
from models.adapters.compute.multiplied import multiplied
from models.adapters.compute.segments import Factors, same, segments
from models.adapters.selection import Partition


class Route(NamedTuple):
    """What a linear computes for the examples of one adapter."""

    weight: Tensor
    """(out, in): frozen beside an increment, else as it is."""
    bias: Tensor | None
    thin: Bottleneck | None = None
    gain: Tensor | None = None
    """(out,), on the sum of both."""
    factors: Multiplied | None = None


def batched_linear(x: Tensor, routes: Sequence[Route], parts: Partition) -> Tensor:
    """The linear of each example's own route.

    Args:
        x: (B, n, in), B the examples of `parts`.
        routes: One for each member of `parts`.
        parts: Who has which.

    Returns:
        (B, n, out).
    """
    x = x.to(compute_dtype(x))
    first = routes[0]
    alike = all(
        same(r.weight, first.weight) and same(r.bias, first.bias) for r in routes
    )
    which = torch.tensor(parts.which, device=x.device)
    frozen = not first.weight.requires_grad
    if alike and frozen and all(r.thin is None for r in routes):
        return _multiplied(x, routes, which)
    factors = [_prepared(route, x.dtype) for route in routes]
    hybrids = tuple(
        route.down is not None
        and keeps_increment(x)
        and hybrid_pays(parts.count(k) * x.shape[1], route.weight)
        for k, route in enumerate(factors)
    )
    dense = any(r.thin is None and r.factors is not None for r in routes)
    if alike and frozen and not dense and not any(hybrids):
        return _gathered(x, factors, which)
    return segments(x, parts.runs, hybrids, factors)


def _prepared(route: Route, dtype: torch.dtype) -> Factors:
    weight, thin = route.weight, route.thin
    bias, gain = cast(route.bias, dtype), cast(route.gain, dtype)
    if route.factors is not None:
        out, into = route.factors
        weight = (weight * out[:, None] * into).to(dtype)
    elif weight.requires_grad:
        weight = weight.to(dtype)
    if thin is None:
        return Factors(weight, bias, None, None, gain)
    up = (thin.scale * thin.up).to(dtype)
    return Factors(weight, bias, thin.down.to(dtype), up, gain)


def _multiplied(x: Tensor, routes: Sequence[Route], which: Tensor) -> Tensor:
    """All are multiplicative, or the base: one product for the whole batch."""
    weight, bias = routes[0].weight, routes[0].bias
    ones = (weight.new_ones(weight.shape[0]), weight.new_ones(weight.shape[1]))
    pairs = [route.factors or ones for route in routes]
    out, into = (torch.stack([p[i].to(weight) for p in pairs])[which] for i in (0, 1))

    def product(scaled: Tensor) -> Tensor:
        return F.linear(scaled, weight.to(scaled.dtype))

    return multiplied(x, product, bias, Multiplied(out, into), axis=-1)


def _gathered(x: Tensor, factors: Sequence[Factors], which: Tensor) -> Tensor:
    """All are thin, or the base: factors padded with zeros to the largest rank."""
    weight, bias = factors[0].weight, factors[0].bias
    rank = max(len(f.down) for f in factors if f.down is not None)
    downs, ups = [], []
    for route in factors:
        if route.down is None or route.up is None:
            downs.append(x.new_zeros(rank, x.shape[-1]))
            ups.append(x.new_zeros(len(weight), rank))
            continue
        missing = rank - len(route.down)
        downs.append(F.pad(route.down, (0, 0, 0, missing)) if missing else route.down)
        ups.append(F.pad(route.up, (0, missing)) if missing else route.up)
    gains = [route.gain for route in factors]
    has_gain = any(gain is not None for gain in gains)
    first = None if has_gain else bias
    y: Tensor = _Gathered.apply(
        x, weight, first, torch.stack(downs), torch.stack(ups), which
    )
    if not has_gain:
        return y
    one = x.new_ones(len(weight))
    gain = torch.stack([one if g is None else g for g in gains])[which][:, None]
    return y * gain if bias is None else torch.addcmul(bias, y, gain)


class _Gathered(torch.autograd.Function):
    """y = x W^T + (x D_b^T) U_b^T + bias, with factors (K, r, in) and (K, out, r)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        downs: Tensor,
        ups: Tensor,
        which: Tensor,
    ) -> Tensor:
        y = F.linear(x, weight.to(x.dtype), bias)
        thin = torch.bmm(x, downs[which].mT)
        ctx.save_for_backward(x, weight, downs, ups, which, thin)
        return y.baddbmm_(thin, ups[which].mT)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, downs, ups, which, thin = ctx.saved_tensors
        to_x, _, to_bias, to_downs, to_ups, _ = ctx.needs_input_grad
        grad_thin = torch.bmm(grad, ups[which])
        grad_x = None
        if to_x:
            grad_x = grad @ weight.to(x.dtype)
            grad_x.baddbmm_(grad_thin, downs[which])
        grad_bias = grad.sum((0, 1)) if to_bias else None
        grad_downs = grad_ups = None
        if to_downs:
            grad_downs = _by_adapter(torch.bmm(grad_thin.mT, x), which, downs)
        if to_ups:
            grad_ups = _by_adapter(torch.bmm(thin.mT, grad).mT, which, ups)
        return grad_x, None, grad_bias, grad_downs, grad_ups, None


def _by_adapter(terms: Tensor, which: Tensor, like: Tensor) -> Tensor:
    """Sums of (B, ...) over the examples of each adapter, in float32 at least."""
    wide = torch.promote_types(terms.dtype, torch.float32)
    sums = torch.zeros(like.shape, dtype=wide, device=like.device)
    return sums.index_add_(0, which, terms.to(wide)).to(like.dtype)
