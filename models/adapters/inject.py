"""Put adapters into a network and fold them in again."""

import re
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from models.adapters.base import AdapterConfig, AdapterError, LowRankConfig
from models.adapters.layers import ADAPTED, AdaptedLayer, attach, detach


def adapt(network: nn.Module, config: AdapterConfig) -> tuple[str, ...]:
    """Freeze a network and give its target layers adapters, in place.

    A network may suggest what to adapt by three attributes, each a sequence of
    regular expressions: `adapter_targets`, `fully_trained`, and `never_trained` for
    parameters that its `forward` does not read.

    Args:
        network: Any module; only `Linear` and `Conv2d` layers can be targets.
        config: The method and its options.

    Returns:
        The names of the adapted layers.

    Raises:
        AdapterError: If the network has adapters already, a pattern matches nothing,
            or the options do not fit a layer. The network is unchanged then.
    """
    if any(True for _ in adapted_layers(network)):
        raise AdapterError("the network has adapters already; merge them first")
    targets = config.targets or getattr(network, "adapter_targets", None)
    if not targets:
        raise AdapterError(
            f"targets is not given and {type(network).__name__} suggests none; give a "
            "list of regular expressions over module names"
        )
    train_fully = config.train_fully
    if train_fully is None:
        train_fully = getattr(network, "fully_trained", ())

    names = _matching(network, targets, "targets", tuple(ADAPTED))
    whole = _matching(network, train_fully, "train_fully", (nn.Module,))
    for name in names:
        inside = [outer for outer in whole if f"{name}.".startswith(f"{outer}.")]
        if inside:
            raise AdapterError(
                f"{name} is in targets and, with {inside[0]}, in train_fully; a layer "
                "is adapted or trained in full, not both"
            )
    layers = dict(network.named_modules())
    done: list[str] = []
    try:
        for name in names:
            attach(name, layers[name], config)
            done.append(name)
    except AdapterError:
        for name in done:
            detach(layers[name])
        raise

    network.requires_grad_(False)
    for name in names:
        layers[name].get_submodule("adapter").requires_grad_(True)
    for name in whole:
        layers[name].requires_grad_(True)
    for name, parameter in network.named_parameters():
        if is_never_trained(network, name):
            parameter.requires_grad_(False)
    return tuple(names)


def is_never_trained(network: nn.Module, name: str) -> bool:
    """Whether a network says that its `forward` does not read this module or tensor."""
    patterns: Sequence[str] = getattr(network, "never_trained", ())
    return any(re.search(pattern, name) for pattern in patterns)


@torch.no_grad()
def merge(network: nn.Module) -> None:
    """Fold every adapter into its weight, in place; plain layers remain.

    The sum is formed in float32, or in the weight's own dtype if that is wider, and
    rounded to it once.
    """
    for _, layer in list(adapted_layers(network)):
        wide = torch.promote_types(layer.weight.dtype, torch.float32)
        layer.weight.copy_(layer.weight.to(wide) + layer.adapter.delta().to(wide))
        detach(layer)


def adapted_layers(network: nn.Module) -> Iterator[tuple[str, AdaptedLayer]]:
    """Names and layers that carry an adapter."""
    for name, module in network.named_modules():
        if isinstance(module, AdaptedLayer):
            yield name, module


def orthogonality(network: nn.Module, config: AdapterConfig) -> Tensor | None:
    """The penalty on non-orthogonal factors; None where the config asks for none.

    Mean over layers of (|U^T U - I|^2 + |V^T V - I|^2) / 2, squared Frobenius norms in
    float32, times the config's weight. The squared form: the norm itself has a
    gradient of size 1 at the optimum. Factors of one shape are stacked, so the cost
    is a few batched products however many layers there are.
    """
    if not isinstance(config, LowRankConfig) or config.orthogonal == "none":
        return None
    mode, weight = config.orthogonal, config.orthogonal_weight
    groups: dict[torch.Size, list[Tensor]] = {}
    layers = 0
    for _, layer in adapted_layers(network):
        layers += 1
        for factor in layer.adapter.orthogonal_factors(mode):
            # More columns than rows can never be orthonormal.
            if factor.shape[1] <= factor.shape[0]:
                groups.setdefault(factor.shape, []).append(factor)
    total: Tensor | None = None
    for factors in groups.values():
        stacked = torch.stack(factors).float()
        with torch.autocast(stacked.device.type, enabled=False):
            gram = stacked.mT @ stacked
        if mode == "offdiag":
            defect = gram - torch.diag_embed(gram.diagonal(dim1=1, dim2=2))
        else:
            defect = gram - torch.eye(gram.shape[-1], device=gram.device)
        part = defect.square().sum()
        total = part if total is None else total + part
    return None if total is None else total * (weight / (2 * layers))


def _matching(
    network: nn.Module,
    patterns: Sequence[str],
    option: str,
    kinds: tuple[type[nn.Module], ...],
) -> list[str]:
    """Names of the modules of some kind that match, in the network's own order."""
    names = [
        name
        for name, module in network.named_modules()
        if name and isinstance(module, kinds) and not is_never_trained(network, name)
    ]
    for pattern in patterns:
        if not any(re.search(pattern, name) for name in names):
            examples = ", ".join(names[:3])
            raise AdapterError(
                f"{option}: {pattern!r} matches none of the {len(names)} layers that "
                f"it could; their names are like {examples}"
            )
    return [
        name for name in names if any(re.search(pattern, name) for pattern in patterns)
    ]
