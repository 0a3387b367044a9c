"""Which adapters a network's forward comes by: one that it never does cannot learn."""

import warnings
from typing import Any

import torch
from torch import nn

from models.adapters.base import Adapter


def unreached(network: nn.Module) -> list[str]:
    """Names of the adapters whose weight no forward has used since they were made.

    Compiled code does not tell; ask after a forward that is not compiled.
    """
    return [
        name.removesuffix(".adapter")
        for name, module in network.named_modules()
        if isinstance(module, Adapter) and not module.reached
    ]


def watch(network: nn.Module) -> None:
    """Warn once, after the first training forward, of the adapters it did not reach."""
    network.register_forward_hook(_after_forward)


def unwatch(network: nn.Module) -> bool:
    """Take the watch off, in place; whether it was still there."""
    hooks = network._forward_hooks
    keys = [key for key, hook in hooks.items() if hook is _after_forward]
    for key in keys:
        del hooks[key]
    return bool(keys)


def _after_forward(network: nn.Module, inputs: Any, output: Any) -> None:
    if torch.compiler.is_compiling():
        return
    if not network.training or not torch.is_grad_enabled():
        return
    unwatch(network)
    if any(_is_compiled(module) for module in network.modules()):
        return
    if names := unreached(network):
        some = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        warnings.warn(
            f"the first training forward used {len(names)} of the adapted weights "
            f"nowhere: {some}. They will not be trained; leave them out of targets, or "
            "name them in the network's `never_trained`",
            stacklevel=2,
        )


def _is_compiled(module: nn.Module) -> bool:
    wrapped = isinstance(module, torch._dynamo.OptimizedModule)
    return wrapped or module._compiled_call_impl is not None
