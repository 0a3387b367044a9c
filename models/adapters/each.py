"""Train several adapters of a bank in one step, each as it would be trained alone.

The parts of a mixed step that are not the same for one adapter: its loss is over its
own examples, with its own penalty, and its gradients are clipped by their own norm.
What is not in the batch has no gradient, so that an optimiser leaves it, its moments
and its decay alone.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from models.adapters.bank import AdapterBank


def examples_of(names: Sequence[str | None]) -> dict[str | None, list[int]]:
    """The places in a batch of each adapter's examples, None the base's."""
    found: dict[str | None, list[int]] = {}
    for i, name in enumerate(names):
        found.setdefault(name, []).append(i)
    return found


def losses_of_each(
    bank: AdapterBank,
    names: Sequence[str | None],
    loss: Callable[[list[int]], Tensor],
) -> dict[str, Tensor]:
    """Each adapter's loss and penalty; their sum gives each its own gradient.

    Args:
        bank: In which `names` are selected now.
        names: One for each example of the batch; those of the base count for nothing.
        loss: The mean loss of the examples at some places of the batch.
    """
    found = {n: loss(own) for n, own in examples_of(names).items() if n is not None}
    penalties = bank.orthogonality()
    return {
        n: own + penalties[n] if n in penalties else own for n, own in found.items()
    }


def clip_each(bank: AdapterBank, max_norm: float) -> dict[str, Tensor]:
    """Scale the gradients of each adapter to a norm of its own, at most, in place.

    Returns:
        Name to norm before, of those that have gradients.
    """
    found = {}
    for name in bank.names:
        parameters = [
            p for p in bank.roster.find(name).parameters() if p.grad is not None
        ]
        if parameters:
            found[name] = nn.utils.clip_grad_norm_(parameters, max_norm)
    return found
