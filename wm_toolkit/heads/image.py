"""Pictures out of features: the decoder head."""

from __future__ import annotations

import dataclasses
import itertools
import math

import torch
from torch import Tensor, nn

from wm_toolkit.errors import ConfigError
from wm_toolkit.nn.image import resized


@dataclasses.dataclass(frozen=True)
class Image:
    """Pixels with unit-variance Gaussian noise.

    Attributes:
        mean: [..., h, w, C] in [0, 1] (training may leave the range).
    """

    mean: Tensor

    @property
    def mode(self) -> Tensor:
        """Equal to the mean, [..., h, w, C]."""
        return self.mean

    @property
    def uint8(self) -> Tensor:
        """[..., h, w, C] uint8, for viewing."""
        return self.mean.detach().clamp(0, 1).mul(255).round().to(torch.uint8)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """The mean: pixel noise is not worth drawing; [..., h, w, C]."""
        return self.mean

    def log_prob(self, x: Tensor) -> Tensor:
        """[...] log-density of images x [..., h, w, C] (uint8, or float in [0, 1])."""
        error = self.mean - _unit(x)
        return (-0.5 * error.square() - 0.5 * math.log(2 * math.pi)).sum((-3, -2, -1))

    def entropy(self) -> Tensor:
        """[...] in nats; a constant, since the variance is fixed."""
        pixels = math.prod(self.mean.shape[-3:])
        nats = 0.5 * pixels * (1 + math.log(2 * math.pi))
        return torch.full(self.mean.shape[:-3], nats, device=self.mean.device)

    def loss(self, target: Tensor) -> Tensor:
        """[...] mean squared error to images [..., h, w, C] (uint8, or float in [0, 1])."""
        return (self.mean - _unit(target)).square().mean((-3, -2, -1))


def _unit(images: Tensor) -> Tensor:
    return images.float() / 255 if images.dtype == torch.uint8 else images


class ImageHead(nn.Module):
    """Transposed convolutions from features [..., F] to an Image [..., h, w, C].

    They draw squares of 4 times a power of two px; other sizes are resampled from the nearest of those. A
    learnt picture is added to all of them, so that a still background costs the convolutions nothing.

    Args:
        features: F.
        size: (h, w) of the image in px, or its side.
        channels: C.
        width: channels of the last hidden layer; they double towards the 4x4 start, up to `widest`.
        widest: most channels.
    """

    def __init__(
        self,
        features: int,
        size: int | tuple[int, int] = 64,
        *,
        channels: int = 3,
        width: int = 16,
        widest: int = 128,
    ) -> None:
        super().__init__()
        self.size = (size, size) if isinstance(size, int) else size
        if min(self.size) < 1:
            raise ConfigError(f"size is {self.size} px, expected at least 1 in both")
        doublings = max(0, round(math.log2(max(self.size) / 4)))
        widths = [min(width * 2**i, widest) for i in reversed(range(doublings))] + [channels]
        layers: list[nn.Module] = [nn.Linear(features, widths[0] * 16)]
        layers.append(nn.Unflatten(1, (widths[0], 4, 4)))
        for wide, narrow in itertools.pairwise(widths):
            layers += [nn.GELU(), nn.ConvTranspose2d(wide, narrow, 4, 2, 1)]
        self.net = nn.Sequential(*layers)
        self.background = nn.Parameter(torch.full((*self.size, channels), 0.5))

    def forward(self, features: Tensor) -> Image:
        """[..., F] to an Image of mean [..., h, w, C]."""
        pixels = resized(self.net(features.reshape(-1, features.shape[-1])), self.size)
        pixels = pixels.permute(0, 2, 3, 1)
        return Image(pixels.reshape(*features.shape[:-1], *pixels.shape[1:]) + self.background)
