"""The orthogonality penalty, in a few batched products for a whole network."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from models.adapters.base import Adapter, AdapterConfig
from models.adapters.inject import adapters
from models.adapters.methods.low_rank import LowRankConfig


def orthogonality(network: nn.Module, config: AdapterConfig) -> Tensor | None:
    """The penalty on non-orthogonal factors; None where the config asks for none.

    Mean over layers of (|U^T U - I|^2 + |V^T V - I|^2) / 2, squared Frobenius norms in
    float32, times the config's weight. The squared form: the norm itself has a
    gradient of size 1 at the optimum. Factors of one shape are stacked, so the cost
    is a few batched products however many layers there are.
    """
    return penalty((adapter for _, adapter in adapters(network)), config)


def penalty(acting: Iterable[Adapter], config: AdapterConfig) -> Tensor | None:
    """The same for some adapters of one configuration."""
    if not isinstance(config, LowRankConfig) or config.orthogonal == "none":
        return None
    mode, weight = config.orthogonal, config.orthogonal_weight
    groups: dict[torch.Size, list[Tensor]] = {}
    layers = 0
    for adapter in acting:
        layers += 1
        for factor in adapter.orthogonal_factors(mode):
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
