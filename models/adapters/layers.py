"""Adapted layers: a layer with an adapter is still that layer.

`attach` changes an instance's class to a subclass of its own and adds one submodule,
`adapter`; `detach` undoes both. The base's state-dict keys, its tensors and its
identity stay what they were.
"""

from torch import Tensor, nn

from models.adapters.base import Adapter, AdapterConfig, AdapterError, WeightShape
from models.adapters.functional import adapted_conv, adapted_linear


class AdaptedLinear(nn.Linear):
    """`nn.Linear` whose frozen weight has an increment."""

    adapter: Adapter

    def forward(self, x: Tensor) -> Tensor:
        return adapted_linear(x, self.weight, self.bias, self.adapter.bottleneck())


class AdaptedConv2d(nn.Conv2d):
    """`nn.Conv2d` whose frozen weight has an increment."""

    adapter: Adapter

    def forward(self, x: Tensor) -> Tensor:
        if self.groups > 1:
            weight = self.weight + self.adapter.delta().to(self.weight.dtype)
            return self._convolve(x, weight, self.bias)
        increment = self.adapter.bottleneck()
        return adapted_conv(x, self.weight, self.bias, increment, self._convolve)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's own geometry with another weight."""
        y: Tensor = self._conv_forward(x, weight, bias)
        return y


AdaptedLayer = AdaptedLinear | AdaptedConv2d
ADAPTED: dict[type[nn.Module], type[AdaptedLayer]] = {
    nn.Linear: AdaptedLinear,
    nn.Conv2d: AdaptedConv2d,
}


def attach(name: str, layer: nn.Module, config: AdapterConfig) -> None:
    """Give `layer` an adapter, in place.

    Args:
        name: The layer's dotted name, for messages.
        layer: Exactly one of the classes in `ADAPTED`.
        config: What kind of adapter.
    """
    adapted = ADAPTED.get(type(layer))
    if adapted is None or not isinstance(layer, nn.Linear | nn.Conv2d):
        kinds = ", ".join(kind.__name__ for kind in ADAPTED)
        raise AdapterError(
            f"{name} is a {type(layer).__name__}; only {kinds} can be adapted, "
            "leave it out of targets"
        )
    try:
        adapter = config.build(WeightShape(tuple(layer.weight.shape)))
    except AdapterError as error:
        raise AdapterError(f"{name}: {error}") from None
    layer.add_module("adapter", adapter.to(layer.weight.device))
    layer.__class__ = adapted


def detach(layer: AdaptedLayer) -> None:
    """Take the adapter off and restore the plain class, in place."""
    del layer.adapter
    layer.__class__ = type(layer).__base__  # type: ignore[assignment]
