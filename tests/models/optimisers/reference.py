"""The paper's algorithm in NumPy and float64, one tensor at a time.

Adafactor as in Shazeer and Stern, algorithm 4 and section 7 (row and column means,
decay 1 - t^-0.8); the momentum as in Hao et al., algorithm 2, applied to its update.
"""

import math

import numpy as np
import torch
from torch import nn


def train(
    weight,
    gradients,
    projection=None,
    *,
    kappa=1000,
    beta=0.9,
    lr=1e-2,
    clip=1.0,
    weight_decay=0.0,
    scale_parameter=False,
    relative_step=False,
):
    """Weights after each step, and the momenta.

    Args:
        weight: (m, n), or (n,) of a vector.
        gradients: One a step.
        projection: P (smaller side, rank) by period; None keeps the momentum whole.
    """
    weight = np.array(weight, np.float64)
    row = col = square = 0.0
    momentum, weights, momenta = None, [], []
    for t, g in enumerate(np.asarray(gradients, np.float64), 1):
        decay = 1 - t**-0.8
        squared = g**2 + 1e-30
        if weight.ndim == 2:
            row = decay * row + (1 - decay) * squared.mean(1)
            col = decay * col + (1 - decay) * squared.mean(0)
            u = g / np.sqrt(np.outer(row, col) / row.mean())
        else:
            square = decay * square + (1 - decay) * squared
            u = g / np.sqrt(square)
        if projection is None:
            momentum = np.zeros_like(u) if momentum is None else momentum
            out = momentum = beta * momentum + (1 - beta) * u
        else:
            p = projection((t - 1) // kappa)
            across = u.shape[0] < u.shape[1]

            def down(x, p=p, across=across):
                return p.T @ x if across else x @ p

            def up(x, p=p, across=across):
                return p @ x if across else x @ p.T

            momentum = np.zeros_like(down(u)) if momentum is None else momentum
            out = (1 - beta) * u + beta * up(momentum)
            if t % kappa == 0:
                p_next = projection(t // kappa)
                momentum = down(up(momentum), p_next)
                momentum = beta * momentum + (1 - beta) * down(u, p_next)
            else:
                momentum = beta * momentum + (1 - beta) * down(u)
        rate = min(lr, t**-0.5) if relative_step else lr
        size = max(1e-3, root_mean_square(weight)) if scale_parameter else 1.0
        out = out / max(1.0, root_mean_square(out) / clip)
        weight = (1 - rate * weight_decay) * weight - rate * size * out
        weights.append(weight)
        momenta.append(momentum)
    return weights, momenta


def root_mean_square(x):
    return np.sqrt(np.mean(x**2))


def matrix(shape) -> tuple[int, ...]:
    """The shape that the optimiser should see, derived apart from it."""
    kept = [size for size in shape if size != 1]
    return (kept[0], math.prod(kept[1:])) if len(kept) > 1 else (math.prod(shape),)


def problem(shape, steps, dtype=torch.float64):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=shape)
    gradients = rng.normal(size=(steps, *shape)) * rng.uniform(0.1, 3, size=shape)
    return weight, gradients, nn.Parameter(torch.tensor(weight, dtype=dtype))


def steps_of(optimizer, parameter, gradients):
    found = []
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient, dtype=parameter.dtype)
        optimizer.step()
        found.append(parameter.detach().clone())
    return found
