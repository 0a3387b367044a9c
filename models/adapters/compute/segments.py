"""Segments of a batch, each with its own linear: `batched.py` says when and why."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.adapters.compute.linear import gain_gradient, thin_product

Run = tuple[int, int, int]
"""Neighbouring examples with one route: first, last + 1, number of the route."""


class Factors(NamedTuple):
    """y = gain o (x (W + up down)^T) + bias; only a frozen W may have another dtype."""

    weight: Tensor
    bias: Tensor | None
    down: Tensor | None
    up: Tensor | None
    gain: Tensor | None

    def product_weight(self, x: Tensor, hybrid: bool, room: "Room") -> Tensor:
        """W, or W + dW where that is formed, in the dtype of x."""
        weight = self.weight.to(x.dtype)
        if not hybrid or self.up is None or self.down is None:
            return weight
        return room.sum(weight, self.up, self.down)

    def turned(self, weight: Tensor, hybrid: bool, room: "Room") -> Tensor:
        """The same, (in, out), from W^T laid out so.

        A CPU's products of some hundred rows are 3 to 9 % faster with it than with a
        view of (out, in), and one turned W serves all segments.
        """
        if not hybrid or self.up is None or self.down is None:
            return weight
        return room.sum(weight, self.down.mT, self.up.mT)

    def joins(self, hybrid: bool) -> bool:
        """Whether its product with W may be one with its neighbours'."""
        return not hybrid and self.gain is None


class Room:
    """Where W + dW is formed, of one segment after the other.

    New memory for each took 3 to 17 % of a mixed linear's time (AVX-512, 476 rows an
    example): its pages are given back and cleared again.
    """

    def __init__(self) -> None:
        self._taken: Tensor | None = None

    def sum(self, weight: Tensor, up: Tensor, down: Tensor) -> Tensor:
        """weight + up down, until the next one."""
        taken = self._taken
        if taken is None or taken.shape != weight.shape or taken.dtype != weight.dtype:
            taken = self._taken = torch.empty(
                weight.shape, dtype=weight.dtype, device=weight.device
            )
        return torch.addmm(weight, up, down, out=taken)


WIDTH = len(Factors._fields)


def segments(
    x: Tensor, runs: Sequence[Run], hybrids: Sequence[bool], routes: Sequence[Factors]
) -> Tensor:
    """The linear of each example's own route.

    Args:
        x: (B, n, in).
        runs: All examples, in order.
        hybrids: For each route, whether W + dW is formed.
        routes: Each once.

    Returns:
        (B, n, out).
    """
    flat = [tensor for route in routes for tensor in route]
    # A run's rows are a view: pointwise convolutions hand in their channels transposed.
    rows = x.contiguous()
    y: Tensor = _Segments.apply(rows, tuple(runs), tuple(hybrids), *flat)
    return y


class _Segments(torch.autograd.Function):
    """After x, runs and hybrids the tensors of each route, as in `Factors`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        runs: tuple[Run, ...],
        hybrids: tuple[bool, ...],
        *flat: Tensor | None,
    ) -> Tensor:
        routes = _routes(flat)
        y = x.new_empty(*x.shape[:2], len(routes[0].weight))
        products: list[Tensor | None] = [None] * len(runs)
        for start, stop, k in _joined(runs, hybrids, routes):
            w = routes[k].weight.to(x.dtype).mT
            _multiply(x[start:stop], w, routes[k].bias, y[start:stop])
        turned: Tensor | None = None
        of_turned = routes[0].weight
        room = Room()
        for k, own in enumerate(routes):
            v = None
            if not own.joins(hybrids[k]):
                if turned is None or not same(own.weight, of_turned):
                    turned = own.weight.to(x.dtype).mT.contiguous()
                    of_turned = own.weight
                v = own.turned(turned, hybrids[k], room)
            for i, x_run, y_run in _runs_of(k, runs, x, y):
                product = y_run
                if v is not None:
                    if ctx.needs_input_grad[2 + WIDTH * (k + 1)]:
                        product = products[i] = torch.empty_like(y_run)
                    bias = own.bias if own.gain is None else None
                    _multiply(x_run, v, bias, product)
                if not hybrids[k] and own.down is not None and own.up is not None:
                    product.addmm_(thin_product(x_run, own.down), own.up.mT)
                if own.gain is not None:
                    torch.mul(product, own.gain, out=y_run)
                    if own.bias is not None:
                        y_run.add_(own.bias)
        ctx.runs, ctx.hybrids = runs, hybrids
        ctx.save_for_backward(x, *flat, *products)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, *rest = ctx.saved_tensors
        runs, hybrids = ctx.runs, ctx.hybrids
        routes = _routes(rest[: WIDTH * len(hybrids)])
        products = rest[WIDTH * len(hybrids) :]
        grad = grad.contiguous()
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        if grad_x is not None:
            for start, stop, k in _joined(runs, hybrids, routes):
                w = routes[k].weight.to(x.dtype)
                _multiply(grad[start:stop], w, None, grad_x[start:stop])
        gradients: list[Tensor | None] = []
        room = Room()
        for k, own in enumerate(routes):
            wanted = ctx.needs_input_grad[3 + WIDTH * k : 3 + WIDTH * (k + 1)]
            sums: list[Tensor | None] = [None] * WIDTH
            gain = None if own.gain is None else own.gain[:, None]
            up = own.up if own.up is None or gain is None else own.up * gain
            v = None
            if grad_x is not None and not own.joins(hybrids[k]):
                v = own.product_weight(x, hybrids[k], room)
                v = v if gain is None else v * gain
            for i, x_run, g in _runs_of(k, runs, x, grad):
                into = None
                if grad_x is not None:
                    into = _flat(grad_x, runs[i])
                if into is not None and v is not None:
                    _multiply(g, v, None, into)
                terms: list[Tensor | None] = [None] * WIDTH
                if wanted[0]:
                    terms[0] = g.mT @ x_run
                if wanted[1]:
                    terms[1] = g.sum(0)
                if own.down is not None and up is not None:
                    grad_thin = thin_product(g, up.mT)
                    if into is not None and not hybrids[k]:
                        into.addmm_(grad_thin, own.down)
                    if wanted[2]:
                        terms[2] = grad_thin.mT @ x_run
                    if wanted[3]:
                        terms[3] = (thin_product(x_run, own.down).mT @ g).mT
                if wanted[4]:
                    terms[4] = gain_gradient(g, products[i])
                sums = [
                    new if old is None or new is None else old + new
                    for old, new in zip(sums, terms, strict=True)
                ]
            if sums[3] is not None and gain is not None:
                sums[3] = sums[3] * gain
            gradients += sums
        return grad_x, None, None, *gradients


def same(one: Tensor | None, two: Tensor | None) -> bool:
    """Whether two tensors are one: a transposed weight is another object every time."""
    if one is two or one is None or two is None:
        return one is two
    at = one.data_ptr() == two.data_ptr() and one.stride() == two.stride()
    return at and one.shape == two.shape and one.dtype == two.dtype


def _routes(flat: Sequence[Tensor | None]) -> list[Factors]:
    groups = (flat[i : i + WIDTH] for i in range(0, len(flat), WIDTH))
    return [Factors(*group) for group in groups]  # type: ignore[arg-type]


def _joined(
    runs: Sequence[Run], hybrids: Sequence[bool], routes: Sequence[Factors]
) -> Iterator[Run]:
    """Runs whose products with W are one with their neighbours'."""
    begun: Run | None = None
    for start, stop, k in runs:
        own = routes[k]
        if begun is not None:
            last = routes[begun[2]]
            alike = same(own.weight, last.weight) and same(own.bias, last.bias)
            if alike and own.joins(hybrids[k]):
                begun = (begun[0], stop, begun[2])
                continue
            yield begun
        begun = (start, stop, k) if own.joins(hybrids[k]) else None
    if begun is not None:
        yield begun


def _runs_of(
    k: int, runs: Sequence[Run], x: Tensor, y: Tensor
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Numbers of the runs of one route, and their rows of two tensors."""
    for i, run in enumerate(runs):
        if run[2] == k:
            yield i, _flat(x, run), _flat(y, run)


def _flat(x: Tensor, run: Run) -> Tensor:
    """(B, n, C) of a run's examples as rows (b n, C), a view."""
    return x[run[0] : run[1]].view(-1, x.shape[-1])


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor) -> None:
    """y = x weight + bias, written in place; x and y are views on contiguous rows."""
    rows, out = x.view(-1, x.shape[-1]), y.view(-1, y.shape[-1])
    if bias is None:
        torch.mm(rows, weight, out=out)
    else:
        torch.addmm(bias, rows, weight, out=out)
