"""V of World Models: a variational autoencoder of single images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wm_toolkit.encoders.observations import image_keys
from wm_toolkit.errors import SpaceError
from wm_toolkit.heads.normal import Normal
from wm_toolkit.heads.observations import Picture
from wm_toolkit.nn.conv import StrideDecoder, StrideEncoder
from wm_toolkit.nn.image import resized, to_float
from wm_toolkit.spaces import Spaces, image_shape

SIZE = 64  # px, side of the images that the convolutions take and draw


class VAEEncoder(nn.Module):
    """One image to a Gaussian over z: mean and log-variance, linear on four convolutions.

    Images of another size than 64 x 64 px are resized.

    Args:
        spaces: with exactly one image among the observations.
        latent: Z.
        depth: channels of the first convolution (32 as published).
        log_variance: what it is at first (0 as published); where it is low, small things are found sooner,
            because their traces in the mean are not drowned in noise.

    Attributes:
        key: name of the image observation.

    Raises:
        SpaceError: if there is no image, or more than one.
    """

    def __init__(
        self, spaces: Spaces, latent: int, *, depth: int = 32, log_variance: float = 0.0
    ) -> None:
        super().__init__()
        keys = image_keys(spaces)
        if len(keys) != 1:
            raise SpaceError(f"a VAE reads one image; the image observations are {keys or 'none'}")
        self.key, self.latent = keys[0], latent
        self.channels = image_shape(spaces.observation[self.key])[-1]
        self.net = StrideEncoder(self.channels, depth)
        self.mean = nn.Linear(self.net.width, latent)
        self.log_variance = nn.Linear(self.net.width, latent)
        _glorot(self)
        nn.init.constant_(self.log_variance.bias, log_variance)

    def forward(self, obs: Mapping[str, Tensor]) -> Normal:
        """The image [..., h, w, C] among the observations to a Normal over [..., Z]."""
        mean, log_variance = self.statistics(self.pixels(obs))
        return Normal(mean, (0.5 * log_variance).exp())

    def pixels(self, obs: Mapping[str, Tensor]) -> Tensor:
        """[..., C, 64, 64] the image in [0, 1]."""
        zeros, ones = (0.0,) * self.channels, (1.0,) * self.channels
        return to_float(obs[self.key], size=SIZE, mean=zeros, std=ones)

    def statistics(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """[..., C, 64, 64] to mean and log-variance [..., Z]."""
        lead = pixels.shape[:-3]
        hidden = self.net(pixels.flatten(0, -4))
        return self.mean(hidden).unflatten(0, lead), self.log_variance(hidden).unflatten(0, lead)


class VAEDecoder(nn.Module):
    """z to an image, whose loss is the squared error summed over the pixels.

    Args:
        latent: Z.
        shape: (h, w, C) of the image.
        depth: channels before the last layer (32 as published).
    """

    def __init__(self, latent: int, shape: tuple[int, int, int], *, depth: int = 32) -> None:
        super().__init__()
        self.size, channels = shape[:2], shape[2]
        self.net = StrideDecoder(latent, channels, depth)
        _glorot(self)

    def pixels(self, z: Tensor) -> Tensor:
        """[..., Z] to [..., C, 64, 64] in (0, 1)."""
        return self.net(z.reshape(-1, z.shape[-1])).sigmoid().unflatten(0, z.shape[:-1])

    def forward(self, z: Tensor) -> Picture:
        """[..., Z] to a Picture of mean [..., h, w, C]."""
        pixels = self.pixels(z)
        sized = resized(pixels.flatten(0, -4), self.size).unflatten(0, pixels.shape[:-3])
        return Picture(torch.movedim(sized, -3, -1))


def _glorot(module: nn.Module) -> None:
    """Glorot's initial weights and no biases, as in the released code; smaller ones learn to see late."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
