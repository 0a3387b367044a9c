"""Adapted layers: a layer with an adapter is still that layer.

`attach` changes an instance's class to a subclass of its own and adds one submodule,
`adapter`; `detach` undoes both. The base's state-dict keys, its tensors and its
identity stay what they were.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from models.adapters.base import Adapter, AdapterConfig, AdapterError, WeightShape
from models.adapters.compute.convolution import Geometry, adapted_conv
from models.adapters.compute.linear import adapted_linear, cast, compute_dtype

ConvNd = nn.modules.conv._ConvNd
ConvTransposeNd = nn.modules.conv._ConvTransposeNd


class AdaptedLayer(nn.Module):
    """What every adapted layer has: its base's weight and an adapter beside it."""

    weight: Tensor
    adapter: Adapter
    dropout_p: float
    """Probability of dropping an input of the increment in training."""

    def dropped(self, x: Tensor) -> Tensor | None:
        """The increment's own input where dropout makes it differ from x."""
        if self.training and self.dropout_p > 0:
            return F.dropout(x, self.dropout_p)
        return None


class AdaptedLinear(AdaptedLayer, nn.Linear):
    """`nn.Linear` whose frozen weight has an increment."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Linear's name
        if not self.adapter.enabled:
            return nn.Linear.forward(self, input)
        increment = self.adapter.bottleneck()
        if increment is None:
            weight = self.adapter.weight(self.weight).to(input.dtype)
            return F.linear(input, weight, self.bias)
        gain = self.adapter.gain(self.weight)
        dropped = self.dropped(input)
        if dropped is None:
            return adapted_linear(input, self.weight, self.bias, increment, gain)
        y = F.linear(input, self.weight)
        thin = F.linear(dropped, increment.down)
        y = y + F.linear(thin, increment.scale * increment.up)
        y = y if gain is None else y * gain
        return y if self.bias is None else y + self.bias


class AdaptedConv(AdaptedLayer):
    """Any convolution, transposed or not, whose frozen weight has an increment."""

    def _adapted(
        self, x: Tensor, bias: Tensor | None, output_padding: tuple[int, ...] = ()
    ) -> Tensor:
        assert isinstance(self, ConvNd)
        batched = x.ndim == len(self.kernel_size) + 2
        x, padding = _padded(self, x if batched else x[None])
        geometry = Geometry(
            _ints(self.stride),
            padding,
            _ints(self.dilation),
            self.transposed,
            output_padding,
            self.groups,
        )
        increment = self.adapter.bottleneck()
        dropped = self.dropped(x)
        if increment is not None and self.groups == 1 and dropped is None:
            gain = self.adapter.gain(self.weight)
            y = adapted_conv(x, self.weight, bias, increment, geometry, gain)
        else:
            # The dense gradient of a grouped kernel is smaller by the groups.
            y = self._dense(x, dropped, bias, geometry)
        return y if batched else y[0]

    def _dense(
        self, x: Tensor, dropped: Tensor | None, bias: Tensor | None, geometry: Geometry
    ) -> Tensor:
        """Convolution with the adapted weight, its increment seeing a dropped input."""
        dtype = compute_dtype(x)
        x, bias = x.to(dtype), cast(bias, dtype)
        weight = self.adapter.weight(self.weight).to(dtype)
        if dropped is None:
            return geometry(x, weight, bias)
        gain = self.adapter.gain(self.weight)
        base = self.weight.to(dtype)
        if gain is not None:
            base = base * _along(gain, weight, self.adapter.shape.out_axis)
        more = geometry(dropped.to(dtype), weight - base, None)
        return geometry(x, base, bias) + more


class AdaptedConv1d(AdaptedConv, nn.Conv1d):
    """`nn.Conv1d` whose frozen weight has an increment."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Conv1d's name
        if not self.adapter.enabled:
            return nn.Conv1d.forward(self, input)
        return self._adapted(input, self.bias)


class AdaptedConv2d(AdaptedConv, nn.Conv2d):
    """`nn.Conv2d` whose frozen weight has an increment."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Conv2d's name
        if not self.adapter.enabled:
            return nn.Conv2d.forward(self, input)
        return self._adapted(input, self.bias)


class AdaptedConv3d(AdaptedConv, nn.Conv3d):
    """`nn.Conv3d` whose frozen weight has an increment."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Conv3d's name
        if not self.adapter.enabled:
            return nn.Conv3d.forward(self, input)
        return self._adapted(input, self.bias)


class AdaptedConvTranspose(AdaptedConv):
    """The three transposed convolutions; `output_size` as in torch."""

    def forward(
        self,
        input: Tensor,  # noqa: A002 - nn.ConvTranspose2d's name
        output_size: list[int] | None = None,
    ) -> Tensor:
        assert isinstance(self, ConvTransposeNd)
        assert not isinstance(self.padding, str)  # torch refuses it here
        if not self.adapter.enabled:
            plain: Tensor = PLAIN[type(self)].forward(self, input, output_size)
            return plain
        axes = len(self.kernel_size)
        output_padding = self._output_padding(
            input,
            output_size,
            list(self.stride),
            list(self.padding),
            list(self.kernel_size),
            axes,
            list(self.dilation),
        )
        return self._adapted(input, self.bias, _ints(output_padding))


class AdaptedConvTranspose1d(AdaptedConvTranspose, nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` whose frozen weight has an increment."""


class AdaptedConvTranspose2d(AdaptedConvTranspose, nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` whose frozen weight has an increment."""


class AdaptedConvTranspose3d(AdaptedConvTranspose, nn.ConvTranspose3d):
    """`nn.ConvTranspose3d` whose frozen weight has an increment."""


class AdaptedEmbedding(AdaptedLayer, nn.Embedding):
    """`nn.Embedding` whose frozen table has an increment."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Embedding's name
        if not self.adapter.enabled:
            return nn.Embedding.forward(self, input)
        increment = self.adapter.bottleneck()
        if increment is None:
            table = self.adapter.weight(self.weight)
            return F.embedding(input, table, self.padding_idx)
        rows = F.embedding(input, self.weight, self.padding_idx)
        thin = F.embedding(input, increment.down.mT)
        dropped = self.dropped(thin)
        thin = thin if dropped is None else dropped
        rows = rows + F.linear(thin, increment.scale * increment.up)
        gain = self.adapter.gain(self.weight)
        return rows if gain is None else rows * gain


ADAPTED: dict[type[nn.Module], type[AdaptedLayer]] = {
    nn.Linear: AdaptedLinear,
    nn.Conv1d: AdaptedConv1d,
    nn.Conv2d: AdaptedConv2d,
    nn.Conv3d: AdaptedConv3d,
    nn.ConvTranspose1d: AdaptedConvTranspose1d,
    nn.ConvTranspose2d: AdaptedConvTranspose2d,
    nn.ConvTranspose3d: AdaptedConvTranspose3d,
    nn.Embedding: AdaptedEmbedding,
}
PLAIN = {adapted: plain for plain, adapted in ADAPTED.items()}


class AdaptedParameter(nn.Module):
    """The parametrization of a bare parameter: W + dW wherever it is read."""

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()
        self.adapter = adapter

    def forward(self, weight: Tensor) -> Tensor:
        if not self.adapter.enabled:
            return weight
        return self.adapter.weight(weight).to(weight.dtype)


def attach(name: str, layer: nn.Module, config: AdapterConfig) -> None:
    """Give `layer` an adapter, in place.

    Args:
        name: The layer's dotted name, for messages and per-layer options.
        layer: Exactly one of the classes in `ADAPTED`: a subclass may read its weight
            in ways of its own.
        config: What kind of adapter.
    """
    if type(layer) not in ADAPTED:
        kinds = ", ".join(kind.__name__ for kind in ADAPTED)
        raise AdapterError(
            f"{name} is a {type(layer).__name__}; only {kinds} can be adapted, "
            "leave it out of targets"
        )
    weight = layer.get_parameter("weight")
    if isinstance(layer, nn.Embedding) and layer.max_norm is not None:
        raise AdapterError(
            f"{name} renormalises its frozen table as it is read (max_norm); leave it "
            "out of targets"
        )
    adapter = _build(name, config, shape_of(layer, config.chunks_of(name)), weight)
    put(layer, adapter, config.dropout_p)


def put(layer: nn.Module, adapter: Adapter, dropout_p: float) -> None:
    """Make a plain layer the adapted one of its kind, in place; `detach` undoes it."""
    layer.add_module("adapter", adapter)
    layer.__class__ = ADAPTED[type(layer)]
    assert isinstance(layer, AdaptedLayer)
    layer.dropout_p = dropout_p


def detach(layer: AdaptedLayer) -> None:
    """Take the adapter off and restore the plain class, in place."""
    del layer.adapter, layer.dropout_p
    layer.__class__ = PLAIN[type(layer)]  # type: ignore[assignment]


def attach_parameter(name: str, owner: nn.Module, config: AdapterConfig) -> None:
    """Give the bare parameter `name` of the module `owner` an adapter, in place."""
    attribute = name.rsplit(".", 1)[-1]
    weight = getattr(owner, attribute)
    if weight.ndim < 2:
        raise AdapterError(f"{name} has {weight.ndim} axes; an increment needs two")
    shape = WeightShape(tuple(weight.shape))
    adapter = _build(name, config, shape, weight)
    parametrize.register_parametrization(owner, attribute, AdaptedParameter(adapter))


def shape_of(layer: nn.Module, chunks: str = "qkv") -> WeightShape:
    """What the axes of a layer's weight mean."""
    stored = tuple(layer.get_parameter("weight").shape)
    if isinstance(layer, nn.Embedding):
        return WeightShape(stored, out_axis=1, in_axis=0)
    groups = layer.groups if isinstance(layer, ConvNd) else 1
    if isinstance(layer, ConvTransposeNd):
        return WeightShape(stored, out_axis=1, in_axis=0, groups=groups)
    if chunks != "qkv" and stored[0] % 3:
        raise AdapterError(f"{stored[0]} outputs are not three equal chunks")
    return WeightShape(stored, groups=groups, chunks=chunks)  # type: ignore[arg-type]


def _build(
    name: str, config: AdapterConfig, shape: WeightShape, weight: Tensor
) -> Adapter:
    try:
        adapter = config.for_layer(name).build(shape, weight)
    except AdapterError as error:
        raise AdapterError(f"{name}: {error}") from None
    # float32 at least: a bfloat16 factor would lose most of each small step.
    wide = torch.promote_types(weight.dtype, torch.float32)
    return adapter.to(weight.device, wide)


def _padded(layer: ConvNd, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """The input as the bare convolution wants it, and the zeros it still has to add."""
    axes = len(layer.kernel_size)
    if layer.padding_mode != "zeros":
        sides = layer._reversed_padding_repeated_twice
        return F.pad(x, sides, mode=layer.padding_mode), (0,) * axes
    if isinstance(layer.padding, str):
        sides = layer._reversed_padding_repeated_twice
        before, after = sides[::2][::-1], sides[1::2][::-1]
        if before == after:
            return x, tuple(before)
        return F.pad(x, sides), (0,) * axes
    return x, _ints(layer.padding)


def _along(values: Tensor, weight: Tensor, axis: int) -> Tensor:
    view = [1] * weight.ndim
    view[axis] = -1
    return values.view(view)


def _ints(numbers: Any) -> tuple[int, ...]:
    """What torch annotates as an int or a string here is a sequence when it is used."""
    return tuple(numbers)
