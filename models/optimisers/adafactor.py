"""Adafactor's arithmetic on many tensors at once (arXiv 1804.04235)."""

import math
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

SQUARE_FLOOR = 1e-30
"""Added to squared gradients: the first epsilon."""
SCALE_FLOOR = 1e-3
"""Size that every tensor has at least: the second epsilon."""
DECAY_POWER = -0.8
"""The second moments' decay is 1 - t^-0.8 (section 7.2)."""


class View(NamedTuple):
    """A tensor as the optimiser sees it."""

    rows: int
    cols: int
    """0 of a vector."""
    rank: int
    """Of its momentum; 0 where that is kept whole."""

    @classmethod
    @cache
    def of(cls, shape: torch.Size, rank: int) -> "View":
        """Axes of size 1 do not count; kernels are (out, in x kernel)."""
        sizes = [size for size in shape if size != 1]
        if len(sizes) < 2:
            return cls(math.prod(shape), 0, 0)
        rows, cols = sizes[0], math.prod(sizes[1:])
        return cls(rows, cols, rank if rank < min(rows, cols) else 0)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the state's tensors."""
        if not self.cols:
            return {"momentum": (self.rows,), "square": (self.rows,)}
        whole = (self.rows, self.cols)
        momentum = (self.rank, max(whole)) if self.rank else whole
        return {"momentum": momentum, "row": (self.rows,), "col": (self.cols,)}


class Member(NamedTuple):
    """A parameter that takes a step."""

    parameter: Tensor
    name: str
    view: View
    state: dict[str, Any]

    def gradient(self) -> Tensor:
        """As a matrix or vector, in the state's precision."""
        gradient = self.parameter.grad
        assert gradient is not None
        shape = self.view[:2] if self.view.cols else self.view[:1]
        return gradient.reshape(shape).to(self.state["momentum"].dtype)


def normalised(members: list[Member]) -> list[Tensor]:
    """Gradients over the roots of their second moments, which take them in."""
    decay = members[0].state["step"] ** DECAY_POWER
    updates = [member.gradient() for member in members]
    if not members[0].view.cols:
        squares = torch._foreach_mul(updates, updates)
        torch._foreach_add_(squares, SQUARE_FLOOR)
        moments = [member.state["square"] for member in members]
        torch._foreach_lerp_(moments, squares, decay)
        return list(torch._foreach_div(updates, torch._foreach_sqrt(moments)))
    for i, (member, gradient) in enumerate(zip(members, updates, strict=True)):
        row, col = member.state["row"], member.state["col"]
        update = gradient * gradient
        for moment, axis in ((row, 1), (col, 0)):
            floor = SQUARE_FLOOR * gradient.shape[axis]
            moment.lerp_(update.sum(axis).add_(floor), decay)
        torch.mul(gradient, (row / row.sum()).rsqrt_()[:, None], out=update)
        updates[i] = update.mul_(col.rsqrt())
    return updates


def move(group: dict[str, Any], members: list[Member], updates: list[Tensor]) -> None:
    """Take the step, each update clipped by its root mean square."""
    parameters = [member.parameter for member in members]
    pairs = list(zip(parameters, updates, strict=True))
    weights = [parameter.to(update.dtype) for parameter, update in pairs]
    roots = [math.sqrt(update.numel()) for update in updates]
    scales = torch._foreach_norm(updates)
    torch._foreach_div_(scales, [root * group["clip"] for root in roots])
    torch._foreach_clamp_min_(scales, 1.0)
    torch._foreach_reciprocal_(scales)
    if group["scale_parameter"]:
        sizes = torch._foreach_norm(weights)
        torch._foreach_div_(sizes, roots)
        torch._foreach_clamp_min_(sizes, SCALE_FLOOR)
        torch._foreach_mul_(scales, sizes)
    lr = group["lr"]
    if group["relative_step"]:
        lr = min(lr, members[0].state["step"] ** -0.5)
    if group["weight_decay"]:
        torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
    shaped = [update.view(parameter.shape) for parameter, update in pairs]
    torch._foreach_addcmul_(weights, shaped, scales, value=-lr)
    for parameter, weight in zip(parameters, weights, strict=True):
        if weight is not parameter:
            parameter.copy_(weight)
