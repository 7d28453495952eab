"""Convolutional parts of the Dreamer family, all generations: 64 x 64 px images in and out."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from wm_toolkit.nn.dense import V3, V3_PREPRINT, BlockLinear, Style, dense, init_scaled, linear

PART = 32  # maps at a time on a CPU: 17 MB of the widest ones


class ChannelNorm(nn.Module):
    """A norm over the channels of [n, C, h, w] and the activation; by default Dreamer V3's."""

    def __init__(self, channels: int, style: Style = V3) -> None:
        super().__init__()
        self.norm = nn.Sequential(*style.after(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[n, C, h, w] to the same."""
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


def conv(
    channels_in: int, channels_out: int, *, scale: float = 1.0, doubled: bool = False
) -> nn.Conv2d:
    """5 x 5 convolution with Dreamer V3's initial weights; keeps the size, which may be doubled before."""
    layer = (
        DoubledConv(channels_in, channels_out)
        if doubled
        else nn.Conv2d(channels_in, channels_out, 5, padding=2)
    )
    init_scaled(layer.weight, 25 * channels_in, scale)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class PoolEncoder(nn.Module):
    """Convolution, maximum of 2 x 2, norm, SiLU; four times (Dreamer V3).

    Args:
        channels: C of the image.
        depth: unit of width.
        multiples: width of each layer, in units of `depth`.
        size: side of the image, px.
    """

    def __init__(
        self,
        channels: int,
        depth: int,
        *,
        multiples: tuple[int, ...] = (2, 3, 4, 4),
        size: int = 64,
    ) -> None:
        super().__init__()
        widths = [channels, *(depth * m for m in multiples)]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [conv(before, after), nn.MaxPool2d(2), ChannelNorm(after)]
        self.net = nn.Sequential(*layers)
        self.width = widths[-1] * (size >> len(multiples)) ** 2

    def forward(self, images: Tensor) -> Tensor:
        """[n, C, size, size] to [n, E], E = `width`."""
        return in_parts(self.net, images).flatten(1)


class UpsampleDecoder(nn.Module):
    """The mirror image: 4 x 4 from the latent, then doubled four times (Dreamer V3).

    Args:
        deter: D.
        stoch: Z.
        channels: C of the image.
        depth: unit of width.
        units: U, hidden width of the random part's branch is 2 U.
        multiples: as of the encoder.
        size: side of the image, px.
        groups: blocks of the deterministic part's map; each draws its share of the channels, everywhere.
            No more than divide the channels.
    """

    def __init__(
        self,
        deter: int,
        stoch: int,
        channels: int,
        *,
        depth: int,
        units: int,
        multiples: tuple[int, ...] = (2, 3, 4, 4),
        size: int = 64,
        groups: int = 8,
    ) -> None:
        super().__init__()
        widths = [*(depth * m for m in reversed(multiples)), channels]
        self.split, self.start = [deter, stoch], size >> len(multiples)
        self.groups = math.gcd(groups, widths[0])
        cells = widths[0] * self.start**2
        self.deter = BlockLinear(deter, cells, self.groups)
        self.stoch = nn.Sequential(dense(stoch, 2 * units), linear(2 * units, cells))
        self.norm = ChannelNorm(widths[0])
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths[:-1]):
            layers += [conv(before, after, doubled=True), ChannelNorm(after)]
        self.net = nn.Sequential(*layers, conv(widths[-2], channels, doubled=True))

    def forward(self, features: Tensor) -> Tensor:
        """[n, D + Z] to logits [n, C, size, size]."""
        deter, stoch = features.split(self.split, -1)
        grouped = self.deter(deter.unflatten(-1, (self.groups, -1)))
        placed = grouped.unflatten(-1, (self.start**2, -1)).transpose(1, 2).flatten(1)
        start = (placed + self.stoch(stoch)).unflatten(-1, (self.start, self.start, -1))
        return in_parts(self.net, self.norm(start.movedim(-1, 1)))


class DoubledConv(nn.Conv2d):
    """Every pixel becomes 2 x 2, then a 5 x 5 convolution keeps that size; done on the small map.

    Pixels of one parity (even or odd row, even or odd column) see 3 x 3 pixels of the small map, through
    sums of the kernel's entries: four convolutions with 9 entries each instead of one with 25.
    """

    sums: Tensor

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 5, padding=2)
        sums = torch.zeros(2, 3, 5)  # [parity, entry of the small kernel, entry of the large one]
        for parity, entry in itertools.product(range(2), range(5)):
            sums[parity, (parity + entry) // 2, entry] = 1
        self.register_buffer("sums", sums, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[n, C, h, w] to [n, C', 2 h, 2 w]."""
        assert self.bias is not None
        small = torch.einsum("pkd,qle,ocde->pqockl", self.sums, self.sums, self.weight)
        out = functional.conv2d(x, small.flatten(0, 2), self.bias.repeat(4), padding=1)
        cells = out.permute(0, 2, 3, 1).unflatten(-1, (2, 2, -1))  # [n, h, w, 2, 2, C']
        rows = cells.permute(0, 1, 3, 2, 4, 5)  # [n, h, 2, w, 2, C']
        return rows.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def in_parts(net: nn.Module, x: Tensor) -> Tensor:
    """`net` of maps x [n, C, h, w], which it treats one by one; on a CPU in parts that fit its cache."""
    if x.device.type != "cpu":
        return net(x)
    parts = [part.contiguous(memory_format=torch.channels_last) for part in x.split(PART)]
    return torch.cat([net(part) for part in parts])


class StrideEncoder(nn.Module):
    """Four convolutions of kernel 4 and stride 2 (World Models, PlaNet, Dreamer V1 and V2).

    64 -> 31 -> 14 -> 6 -> 2 px, so E = 32 `depth`.

    Args:
        channels: C of the image.
        depth: channels of the first layer; each has twice those before it.
        activation: after every layer.
    """

    def __init__(
        self, channels: int, depth: int = 32, *, activation: type[nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        widths = [channels, *(depth * 2**i for i in range(4))]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 4, 2), activation()]
        self.net = nn.Sequential(*layers)
        self.width = 4 * widths[-1]

    def forward(self, images: Tensor) -> Tensor:
        """[n, C, 64, 64] to [n, E]."""
        return self.net(images).flatten(1)


class StrideDecoder(nn.Module):
    """Linear, then transposed convolutions of stride 2: 1 -> 5 -> 13 -> 30 -> 64 px (World Models).

    Args:
        features: F.
        channels: C of the image.
        depth: channels before the last layer.
        activation: between the layers.
    """

    def __init__(
        self,
        features: int,
        channels: int,
        depth: int = 32,
        *,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        widths = [32 * depth, 4 * depth, 2 * depth, depth, channels]
        layers: list[nn.Module] = [nn.Linear(features, widths[0]), nn.Unflatten(1, (-1, 1, 1))]
        for (before, after), kernel in zip(itertools.pairwise(widths), (5, 5, 6, 6), strict=True):
            layers += [nn.ConvTranspose2d(before, after, kernel, 2), activation()]
        self.net = nn.Sequential(*layers[:-1])

    def forward(self, features: Tensor) -> Tensor:
        """[n, F] to [n, C, 64, 64]."""
        return self.net(features)


class HalvingEncoder(nn.Module):
    """Convolution of kernel 4 and stride 2 with padding, norm, activation, four times (V3's preprint).

    64 -> 32 -> 16 -> 8 -> 4 px, so E = 128 `depth`.

    Args:
        channels: C of the image.
        depth: channels of the first layer; each has twice those before it.
        style: of the layers.
    """

    def __init__(self, channels: int, depth: int, *, style: Style = V3_PREPRINT) -> None:
        super().__init__()
        widths = [channels, *(depth * 2**i for i in range(4))]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers.append(nn.Conv2d(before, after, 4, 2, 1, bias=style.norm != "layer"))
            layers.append(ChannelNorm(after, style))
        _start_scaled(layers, style)
        self.net = nn.Sequential(*layers)
        self.width = 16 * widths[-1]

    def forward(self, images: Tensor) -> Tensor:
        """[n, C, 64, 64] to [n, E]."""
        return self.net(images).flatten(1)


class DoublingDecoder(nn.Module):
    """The mirror image: linear to 4 x 4, then transposed convolutions of stride 2 (V3's preprint).

    Args:
        features: F.
        channels: C of the image.
        depth: channels before the last layer.
        style: of the layers between.
    """

    def __init__(
        self, features: int, channels: int, depth: int, *, style: Style = V3_PREPRINT
    ) -> None:
        super().__init__()
        widths = [8 * depth, 4 * depth, 2 * depth, depth, channels]
        start = linear(features, 16 * widths[0], style=style)
        layers: list[nn.Module] = [start, nn.Unflatten(1, (-1, 4, 4))]
        for before, after in itertools.pairwise(widths[:-1]):
            bias = style.norm != "layer"
            layers.append(nn.ConvTranspose2d(before, after, 4, 2, 1, bias=bias))
            layers.append(ChannelNorm(after, style))
        layers.append(nn.ConvTranspose2d(depth, channels, 4, 2, 1))
        _start_scaled(layers, style)
        self.net = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """[n, F] to [n, C, 64, 64]."""
        return self.net(features)


def _start_scaled(layers: list[nn.Module], style: Style) -> None:
    """Initial weights of strided convolutions [*, *, 4, 4]; biases 0."""
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            fans = 16 * layer.in_channels, 16 * layer.out_channels
            init_scaled(layer.weight, style.scale(*fans))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
