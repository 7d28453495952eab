"""Convolutional parts of the Dreamer family, both generations: 64 x 64 px images in and out."""

from __future__ import annotations

import itertools

from torch import Tensor, nn
from torch.nn import functional

from wm_toolkit.nn.dense import BlockLinear, dense, init_scaled, linear


class ChannelNorm(nn.Module):
    """RMSNorm over the channels of [n, C, h, w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(channels, eps=1e-4)

    def forward(self, x: Tensor) -> Tensor:
        """[n, C, h, w] to the same."""
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


def conv(channels_in: int, channels_out: int, *, scale: float = 1.0) -> nn.Conv2d:
    """5 x 5 convolution that keeps the size, with Dreamer V3's initial weights."""
    layer = nn.Conv2d(channels_in, channels_out, 5, padding=2)
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
            layers += [conv(before, after), nn.MaxPool2d(2), ChannelNorm(after), nn.SiLU()]
        self.net = nn.Sequential(*layers)
        self.width = widths[-1] * (size >> len(multiples)) ** 2

    def forward(self, images: Tensor) -> Tensor:
        """[n, C, size, size] to [n, E], E = `width`."""
        return self.net(images).flatten(1)


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
        groups: blocks of the deterministic part's map.
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
        self.split, self.groups, self.start = [deter, stoch], groups, size >> len(multiples)
        cells = widths[0] * self.start**2
        self.deter = BlockLinear(deter, cells, groups)
        self.stoch = nn.Sequential(dense(stoch, 2 * units), linear(2 * units, cells))
        self.norm = ChannelNorm(widths[0])
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths[:-1]):
            layers += [Double(), conv(before, after), ChannelNorm(after), nn.SiLU()]
        self.net = nn.Sequential(*layers, Double(), conv(widths[-2], channels))

    def forward(self, features: Tensor) -> Tensor:
        """[n, D + Z] to logits [n, C, size, size]."""
        deter, stoch = features.split(self.split, -1)
        grouped = self.deter(deter.unflatten(-1, (self.groups, -1))).flatten(-2)
        start = (grouped + self.stoch(stoch)).unflatten(-1, (self.start, self.start, -1))
        return self.net(functional.silu(self.norm(start.movedim(-1, 1))))


class Double(nn.Module):
    """Every pixel becomes 2 x 2."""

    def forward(self, x: Tensor) -> Tensor:
        """[n, C, h, w] to [n, C, 2 h, 2 w]."""
        return functional.interpolate(x, scale_factor=2.0, mode="nearest")


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
