"""What every adapted layer is: the layer, an adapter, and a weight read adapted.

The base weight stays where torch keeps it, in the module's `_parameters` and under its
key of the state dict; `layer.weight` is a property of the adapted class and gives the
adapted weight. So whatever reads the weight without calling the layer, an attention
block or a fused kernel, computes with the adapter, forward and backward.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from models.adapters.base import Adapter, AdapterError, Bottleneck, Multiplied
from models.adapters.compute.batched import Route
from models.adapters.selection import Partition


class AdaptedLayer(nn.Module):
    """A layer with an adapter; alone, in front of a class that reads its own weight."""

    adapter: Adapter
    called: str
    """Its dotted name when it was adapted, for messages."""
    dropout_p: float
    """Probability of dropping an input of the increment in training."""
    dense: bool
    """Whether only the dense adapted weight fits: the adapter was made for another kind
    of layer that the weight is tied with."""

    @property
    def base_weight(self) -> nn.Parameter:
        """The frozen weight, without the increment."""
        weight = self._parameters["weight"]
        assert weight is not None
        return weight

    @property
    def weight(self) -> Tensor:
        """The adapted weight in the base's dtype, dense and with a gradient.

        A write into it is lost; load a state dict to change the base.
        """
        try:
            base = self.base_weight
            # Sharded is how FSDP2 itself looks at it between two forwards.
            if isinstance(base, DTensor) or not self.adapter.acts():
                return base
            return self.adapter.weight(base).to(base.dtype)
        except AttributeError as error:
            # It would send Python on to nn.Module.__getattr__, which has the base.
            raise RuntimeError(f"the adapted weight failed: {error}") from error

    @weight.setter
    def weight(self, value: Tensor) -> None:
        raise AdapterError(
            f"{self.called}.weight is computed, for the layer is adapted, and cannot "
            "be replaced; merge the adapter first"
        )

    def __delattr__(self, name: str) -> None:
        if name == "weight":
            raise AdapterError(
                f"{self.called}.weight is computed, for the layer is adapted, and "
                "cannot be parametrized or hooked; merge the adapter first"
            )
        super().__delattr__(name)

    def bottleneck(self) -> Bottleneck | None:
        """The increment as thin factors; None where the dense weight has to do."""
        return None if self.dense else self.adapter.bottleneck()

    def multiplied(self) -> Multiplied | None:
        """The adapted weight as the base's between two factors; None if it is not."""
        return None if self.dense else self.adapter.multiplied()

    def gain(self) -> Tensor | None:
        """Factor (out,) on each output of the adapted weight; None for 1."""
        return self.adapter.gain(self.base_weight)

    def route(self) -> Route | None:
        """What `batched` has to know of the one adapter that counts now.

        None where the layer has no product for examples that differ.
        """
        return None

    def linear_route(self, flat: Callable[[Tensor], Tensor]) -> Route:
        """The same of a layer that is a linear.

        Args:
            flat: From the stored weight to (out, in), a view.
        """
        base, bias = self.base_weight, cast("Tensor | None", self.bias)
        if not self.adapter.acts():
            return Route(flat(base), bias)
        if (factors := self.multiplied()) is not None:
            return Route(flat(base), bias, factors=factors)
        thin = self.bottleneck()
        if thin is None or base.requires_grad:
            return Route(flat(self.adapter.weight(base)), bias)
        down = thin.dense_down().flatten(1)
        return Route(
            flat(base), bias, Bottleneck(down, thin.up, thin.scale), self.gain()
        )

    def batched(
        self, x: Tensor, rows: int, routes: Sequence[Route], parts: Partition
    ) -> Tensor:
        """The output for examples that differ.

        Args:
            x: The layer's input, `rows` of its first axis to an example.
            rows: At least 1.
            routes: From `route`, for each member of `parts`.
            parts: Which example has which.
        """
        raise NotImplementedError

    def dropped(self, x: Tensor) -> Tensor | None:
        """The increment's own input where dropout makes it differ from x."""
        if self.training and self.dropout_p > 0:
            return F.dropout(x, self.dropout_p)
        return None

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        before, new = self.base_weight, state_dict.get(f"{prefix}weight")
        replaced = (
            new is not None
            and not isinstance(before, DTensor)
            and not torch.equal(new.to(before), before)
        )
        super()._load_from_state_dict(state_dict, prefix, *args)
        if replaced:
            loading = any(key.startswith(f"{prefix}adapter.") for key in state_dict)
            self.adapter.rebase(self.base_weight, loading=loading)
