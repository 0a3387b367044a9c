"""The one table of layer kinds: a layer with an adapter is still that layer.

`put` changes an instance's class to a subclass of its own and adds one submodule,
`adapter`; `detach` undoes both. The base's state-dict keys, its tensors and its
identity stay what they were.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from models.adapters.adapted import AdaptedLayer as AdaptedLayer
from models.adapters.base import Adapter, AdapterError, WeightShape, full_precision
from models.adapters.compute.batched import Route, batched_linear
from models.adapters.compute.linear import adapted_linear
from models.adapters.compute.multiplied import multiplied
from models.adapters.convolutions import (
    AdaptedConv1d,
    AdaptedConv2d,
    AdaptedConv3d,
    AdaptedConvTranspose1d,
    AdaptedConvTranspose2d,
    AdaptedConvTranspose3d,
    ConvNd,
    ConvTransposeNd,
)
from models.adapters.selection import Partition


class AdaptedMatrix(AdaptedLayer):
    """A linear layer, its weight stored (out, in) or (in, out)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Linear's name
        if not self.adapter.acts():
            plain: Tensor = super().forward(input)
            return plain
        base, increment = self.base_weight, self.bottleneck()
        stored_in_out = not isinstance(self, nn.Linear)
        bias = cast("Tensor | None", self.bias)
        if (factors := self.multiplied()) is not None:
            turned = base.mT if stored_in_out else base

            def product(x: Tensor) -> Tensor:
                return F.linear(x, turned.to(x.dtype))

            return multiplied(input, product, bias, factors, axis=-1)
        if increment is None:
            weight = self.adapter.weight(base).to(input.dtype)
            return F.linear(input, weight.mT if stored_in_out else weight, bias)
        gain = self.gain()
        weight = base.mT if stored_in_out else base
        dropped = self.dropped(input)
        return adapted_linear(input, weight, bias, increment, gain, dropped=dropped)

    def route(self) -> Route:
        stored_in_out = not isinstance(self, nn.Linear)
        return self.linear_route(lambda w: w.mT if stored_in_out else w)

    def batched(
        self, x: Tensor, rows: int, routes: Sequence[Route], parts: Partition
    ) -> Tensor:
        flat = x.reshape(len(parts.which), -1, x.shape[-1])
        y = batched_linear(flat, routes, parts)
        return y.view(*x.shape[:-1], y.shape[-1])


class AdaptedLinear(AdaptedMatrix, nn.Linear):
    """`nn.Linear` whose frozen weight has an increment."""


class AdaptedEmbedding(AdaptedLayer, nn.Embedding):
    """`nn.Embedding` whose frozen table has an increment, but for its padding row."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Embedding's name
        if not self.adapter.acts():
            return super().forward(input)
        base, increment = self.base_weight, self.bottleneck()
        if increment is None:
            table = self.adapter.weight(base).to(base.dtype)
            return F.embedding(input, table, self.padding_idx)
        plain = F.embedding(input, base, self.padding_idx)
        with full_precision(base):
            thin = F.embedding(input, increment.down.mT)
            dropped = self.dropped(thin)
            thin = thin if dropped is None else dropped
            rows = plain + F.linear(thin, increment.scale * increment.up)
            gain = self.gain()
            rows = (rows if gain is None else rows * gain).to(base.dtype)
        kept = self.adapter.shape.kept_row
        return rows if kept is None else plain.where((input == kept)[..., None], rows)


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
"""What is known of old; `adapted_class` adds what it meets."""
ELSEWHERE: Mapping[str, type[AdaptedLayer]] = {
    "transformers.pytorch_utils.Conv1D": AdaptedMatrix,
}
"""Layers of packages that need not be installed; GPT-2's linear, stored (in, out)."""
PLAIN = {adapted: plain for plain, adapted in ADAPTED.items()}
COMPUTATION = ("__call__", "forward", "_conv_forward", "_output_padding")


def adapted_class(plain: type[nn.Module]) -> type[AdaptedLayer] | None:
    """The adapted form of a class of layers; None for what is no such layer.

    A subclass that computes as its parent does is adapted like it. One with a
    computation of its own keeps that, and reads the adapted weight in it.
    """
    if plain in ADAPTED:
        return ADAPTED[plain]
    if issubclass(plain, AdaptedLayer):
        return None
    way = ELSEWHERE.get(f"{plain.__module__}.{plain.__qualname__}")
    if way is None:
        parent = next((kind for kind in plain.__mro__ if kind in ADAPTED), None)
        if parent is None:
            return None
        same = all(
            getattr(plain, name, None) is getattr(parent, name, None)
            for name in COMPUTATION
        )
        way = ADAPTED[parent].__mro__[1] if same else AdaptedLayer
    made = type(f"Adapted{plain.__name__}", (way, plain), {})
    ADAPTED[plain], PLAIN[made] = made, plain
    return made


def put(name: str, layer: nn.Module, adapter: Adapter, dropout_p: float) -> None:
    """Make a plain layer the adapted one of its kind, in place; `detach` undoes it."""
    made = adapted_class(type(layer))
    assert made is not None
    dense = adapter.shape != shape_of(layer, adapter.shape.chunks)
    layer.add_module("adapter", adapter)
    layer.__class__ = made
    assert isinstance(layer, AdaptedLayer)
    layer.called, layer.dropout_p, layer.dense = name, dropout_p, dense


def detach(layer: AdaptedLayer) -> None:
    """Take the adapter off and restore the plain class, in place."""
    del layer.adapter, layer.called, layer.dropout_p, layer.dense
    layer.__class__ = PLAIN[type(layer)]  # type: ignore[assignment]


def shape_of(layer: nn.Module, chunks: str = "qkv") -> WeightShape:
    """What the axes of a layer's weight mean."""
    weight = layer._parameters["weight"]
    assert weight is not None
    stored = tuple(weight.shape)
    if isinstance(layer, nn.Embedding):
        padding = layer.padding_idx
        return WeightShape(stored, out_axis=1, in_axis=0, kept_row=padding)
    groups = layer.groups if isinstance(layer, ConvNd) else 1
    if isinstance(layer, ConvTransposeNd):
        return WeightShape(stored, out_axis=1, in_axis=0, groups=groups)
    stored_in_out = not isinstance(layer, nn.Linear | ConvNd)
    out_axis, in_axis = (1, 0) if stored_in_out else (0, 1)
    if chunks != "qkv" and stored[out_axis] % 3:
        raise AdapterError(f"{stored[out_axis]} outputs are not three equal chunks")
    return WeightShape(stored, out_axis, in_axis, groups, chunks)  # type: ignore[arg-type]
