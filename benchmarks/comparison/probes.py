"""What an adaptation did to the weights, and how noisy its gradients are."""

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from datamodules.batch import DepthBatch
from models.adapters import adapted_layers, adapters
from models.adapters.layers import ADAPTED, shape_of
from models.losses import silog

GROUPS = {
    "attention": r"\.attn\.(qkv|proj)$",
    "mlp": r"\.mlp\.(fc1|fc2)$",
    "decoder": r"^depth_head\.(?!scratch\.output_conv2\.2$)",
}


@torch.no_grad()
def increments(
    network: nn.Module, base: dict[str, Tensor]
) -> dict[str, dict[str, float]]:
    """Of each group of layers, |dW| / |W| and the mean effective rank of dW.

    The effective rank of a matrix is the exponential of the entropy of its singular
    values over their sum (Roy and Vetterli, 2007, equation 3); a layer without an
    increment has none.

    Args:
        network: Adapted or trained in full.
        base: Weights by name before any of that.
    """
    adapted = dict(adapted_layers(network))
    found: dict[str, dict[str, float]] = {}
    for group, pattern in GROUPS.items():
        change, whole, ranks = 0.0, 0.0, []
        for name, module in network.named_modules():
            is_layer = name in adapted or type(module) in ADAPTED
            if not is_layer or not re.search(pattern, name):
                continue
            before = base[f"{name}.weight"].double()
            now = module.weight  # the adapted one, where there is an adapter
            assert isinstance(now, Tensor)
            delta = now.double() - before
            change += delta.square().sum().item()
            whole += before.square().sum().item()
            if delta.any():
                ranks.append(effective_rank(shape_of(module).to_matrix(delta)))
        found[group] = {
            "relative_norm": math.sqrt(change / whole),
            "effective_rank": sum(ranks) / len(ranks) if ranks else 0.0,
        }
    return found


def effective_rank(matrix: Tensor) -> float:
    """exp(-sum p ln p), p the singular values over their sum."""
    sigma = torch.linalg.svdvals(matrix)
    p = sigma / sigma.sum()
    return math.exp(torch.special.entr(p).sum().item())


@torch.no_grad()
def orthogonality_defect(network: nn.Module) -> float | None:
    """Root mean square cosine between two columns of a factor, mean over factors.

    0 for orthogonal columns, whatever their length; None where no factor has two.
    """
    defects = []
    for _, adapter in adapters(network):
        for factor in adapter.orthogonal_factors("both"):
            rows, cols = factor.shape
            if not 2 <= cols <= rows or not factor.any(0).all():
                continue
            unit = nn.functional.normalize(factor.double(), dim=0)
            cosines = (unit.mT @ unit).square()
            off = cosines.sum() - cosines.diagonal().sum()
            defects.append(math.sqrt(max(off.item(), 0.0) / (cols * (cols - 1))))
    return sum(defects) / len(defects) if defects else None


def gradient_noise(
    network: nn.Module, batches: Sequence[DepthBatch], variance_focus: float
) -> float:
    """Variance of the minibatch gradient over its mean square, between 0 and about 1.

    Of the loss without a penalty, over the adapters' numbers (or all that is trained
    where there is no adapter); 1 where minibatches have nothing in common.
    """
    trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
    some = [p for n, p in trained.items() if ".adapter." in n] or [*trained.values()]
    rows = []
    for batch in batches:
        depth = network(batch["image"])
        loss = silog(depth, batch["depth"], batch["valid"], variance_focus)
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, some)]))
    gradients = torch.stack(rows).double()
    mean_square = gradients.square().sum(1).mean()
    return (gradients.var(dim=0).sum() / mean_square).item()
