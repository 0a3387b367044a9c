"""Adapted convolutions of one to three axes, transposed or not."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from models.adapters.adapted import AdaptedLayer
from models.adapters.compute.batched import Route, batched_linear
from models.adapters.compute.convolution import Geometry, adapted_conv
from models.adapters.compute.linear import cast, compute_dtype
from models.adapters.compute.multiplied import multiplied
from models.adapters.selection import Partition

ConvNd = nn.modules.conv._ConvNd
ConvTransposeNd = nn.modules.conv._ConvTransposeNd


class AdaptedConv(AdaptedLayer):
    """Any convolution, transposed or not, whose frozen weight has an increment."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Conv2d's name
        if not self.adapter.acts():
            plain: Tensor = super().forward(input)
            return plain
        return self._adapted(input)

    def route(self) -> Route | None:
        """A 1x1 convolution is a linear of each position.

        Of single images torch on a CPU convolves with it five times slower.
        """
        assert isinstance(self, ConvNd)
        inside = self.padding in ("same", "valid") or not any(_ints(self.padding))
        ones = {*self.kernel_size, *self.stride, self.groups} == {1}
        if self.transposed or not ones or not inside:
            return None
        return self.linear_route(lambda weight: weight.flatten(1))

    def batched(
        self, x: Tensor, rows: int, routes: Sequence[Route], parts: Partition
    ) -> Tensor:
        last = x.movedim(1, -1)
        flat = last.reshape(len(parts.which), -1, x.shape[1])
        y = batched_linear(flat, routes, parts)
        return y.view(*last.shape[:-1], y.shape[-1]).movedim(-1, 1)

    def _adapted(self, x: Tensor, output_padding: tuple[int, ...] = ()) -> Tensor:
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
        base, increment = self.base_weight, self.bottleneck()
        if (factors := self.multiplied()) is not None:

            def product(scaled: Tensor) -> Tensor:
                return geometry(scaled, base.to(scaled.dtype), None)

            y = multiplied(x, product, self.bias, factors, axis=1)
            return y if batched else y[0]
        dropped = self.dropped(x)
        if increment is None or self.groups > 1:
            # The dense gradient of a grouped kernel is smaller by the groups.
            y = self._dense(x, dropped, geometry)
        else:
            gain = self.gain()
            y = adapted_conv(
                x, base, self.bias, increment, geometry, gain, dropped=dropped
            )
        return y if batched else y[0]

    def _dense(self, x: Tensor, dropped: Tensor | None, geometry: Geometry) -> Tensor:
        """Convolution with the adapted weight, its increment seeing a dropped input."""
        assert isinstance(self, ConvNd)
        dtype = compute_dtype(x)
        x, bias = x.to(dtype), cast(self.bias, dtype)
        weight = self.adapter.weight(self.base_weight).to(dtype)
        if dropped is None:
            return geometry(x, weight, bias)
        base = self.base_weight.to(dtype)
        gain = self.adapter.gain(self.base_weight)
        if gain is not None:
            view = [1] * weight.ndim
            view[self.adapter.shape.out_axis] = -1
            base = base * gain.to(dtype).view(view)
        more = geometry(dropped.to(dtype), weight - base, None)
        return geometry(x, base, bias) + more


class AdaptedConv1d(AdaptedConv, nn.Conv1d):
    """`nn.Conv1d` whose frozen weight has an increment."""


class AdaptedConv2d(AdaptedConv, nn.Conv2d):
    """`nn.Conv2d` whose frozen weight has an increment."""


class AdaptedConv3d(AdaptedConv, nn.Conv3d):
    """`nn.Conv3d` whose frozen weight has an increment."""


class AdaptedConvTranspose(AdaptedConv):
    """The three transposed convolutions; `output_size` as in torch."""

    def forward(
        self,
        input: Tensor,  # noqa: A002 - nn.ConvTranspose2d's name
        output_size: list[int] | None = None,
    ) -> Tensor:
        assert isinstance(self, ConvTransposeNd)
        assert not isinstance(self.padding, str)  # torch refuses it here
        if not self.adapter.acts():
            plain: Tensor = super(AdaptedConv, self).forward(input, output_size)
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
        return self._adapted(input, _ints(output_padding))


class AdaptedConvTranspose1d(AdaptedConvTranspose, nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` whose frozen weight has an increment."""


class AdaptedConvTranspose2d(AdaptedConvTranspose, nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` whose frozen weight has an increment."""


class AdaptedConvTranspose3d(AdaptedConvTranspose, nn.ConvTranspose3d):
    """`nn.ConvTranspose3d` whose frozen weight has an increment."""


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


def _ints(numbers: Any) -> tuple[int, ...]:
    """What torch annotates as an int or a string here is a sequence when it is used."""
    return tuple(numbers)
