"""What Flora does not train, and states that are not its own."""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, get_args

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from models.errors import CheckpointError, OptionError
from models.optimisers.projections import Projection

Group = dict[str, Any]
MEANING = ("rank", "kappa", "projection", "seed")
"""Options without which a momentum cannot be read."""


def named(group: Group) -> Iterator[tuple[Tensor, str]]:
    """Parameters of a group with their names, empty where they have none."""
    names = group.get("param_names") or [""] * len(group["params"])
    return zip(group["params"], names, strict=True)


def check_group(group: Group) -> None:
    """Refuse what the arithmetic is not for.

    Raises:
        OptionError: Naming the option or the parameter.
    """
    for name, least in (("rank", 1), ("kappa", 1), ("seed", 0)):
        value = group[name]
        if not isinstance(value, int) or value < least:
            raise OptionError(
                f"Flora's {name} {value!r} must be a whole number from {least}"
            )
    if group["projection"] not in get_args(Projection):
        raise OptionError(
            f"Flora's projection {group['projection']!r} is not known; use "
            f"{' or '.join(get_args(Projection))}"
        )
    if not 0 < group["beta"] < 1:
        raise OptionError(
            f"Flora's beta {group['beta']} must lie between 0 and 1; without momentum "
            "use torch.optim.Adafactor"
        )
    if not min(group["lr"], group["weight_decay"]) >= 0 or not group["clip"] > 0:
        raise OptionError(
            f"Flora's lr {group['lr']} and weight_decay {group['weight_decay']} must "
            f"not be negative, and its clip {group['clip']} must be above 0"
        )
    for parameter, name in named(group):
        what = f"{name or 'a parameter'} {tuple(parameter.shape)}"
        if not parameter.is_floating_point():
            raise OptionError(
                f"Flora trains real numbers, but {what} is {parameter.dtype}; use "
                "torch.optim.AdamW for it"
            )
        # FSDP2's shards are DTensors; FSDP1 marks its own.
        if isinstance(parameter, DTensor) or hasattr(parameter, "_fsdp_flattened"):
            raise OptionError(
                f"Flora projects whole matrices, but {what} is a shard (FSDP); use DDP "
                "(--trainer.strategy ddp) or another optimiser"
            )


def check_gradient(gradient: Tensor, name: str) -> None:
    """Refuse a sparse gradient.

    Raises:
        OptionError: Naming the parameter.
    """
    if gradient.layout != torch.strided:
        raise OptionError(
            f"Flora takes dense gradients, but {name or 'a parameter'} "
            f"{tuple(gradient.shape)} has a sparse one; make its embedding with "
            "sparse=False, or use torch.optim.SparseAdam for it"
        )


def check_same(own: Group, saved: Group) -> None:
    """Refuse a state whose momenta mean something else here.

    Raises:
        CheckpointError: Naming what is different.
    """
    for name in MEANING:
        if own[name] != saved.get(name):
            raise CheckpointError(
                f"the state's {name} is {saved.get(name)}, but Flora is asked for "
                f"{own[name]}; its momenta have a meaning with the former alone"
            )
    names = (group.get("param_names") or () for group in (own, saved))
    for mine, theirs in zip_longest(*names, fillvalue="a parameter without a name"):
        if mine != theirs:
            raise CheckpointError(
                f"the state has {theirs} in the place of {mine}; give Flora the same "
                "parameters in the same order"
            )
