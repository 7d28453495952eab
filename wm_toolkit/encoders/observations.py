"""Several observations, images and vectors together, as one embedding."""

from __future__ import annotations

from collections.abc import Mapping

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from wm_toolkit.errors import SpaceError
from wm_toolkit.heads.observations import Vector
from wm_toolkit.heads.twohot import symlog
from wm_toolkit.nn.image import to_float
from wm_toolkit.spaces import Spaces, is_image


def image_keys(spaces: Spaces) -> list[str]:
    """Names of the image observations, sorted."""
    return [key for key in sorted(spaces.observation) if is_image(spaces.observation[key])]


def vectors_of(spaces: Spaces) -> dict[str, Vector]:
    """How every other observation becomes flat, sorted by name.

    A Box of any shape is its numbers side by side, a MultiBinary its bits; a choice among n becomes n.

    Raises:
        SpaceError: naming an observation of another kind, or one whose choices do not count from 0.
    """
    return {
        key: _vector(key, space)
        for key, space in sorted(spaces.observation.items())
        if not is_image(space)
    }


def channels(spaces: Spaces) -> int:
    """Channels of all image observations together.

    Raises:
        SpaceError: if their sizes differ, or one has its channels in front.
    """
    shapes = {key: tuple(spaces.observation[key].shape or ()) for key in image_keys(spaces)}
    for key, shape in shapes.items():
        if shape[0] <= 4 < shape[-1]:
            raise SpaceError(
                f"image observation {key!r} has shape {shape}, with its channels in front; wrap the "
                "environment so that they come last (h, w, C)"
            )
    if len({shape[:2] for shape in shapes.values()}) > 1:
        raise SpaceError(f"image observations of different sizes cannot be stacked: {shapes}")
    return sum(shape[-1] for shape in shapes.values())


def side_by_side(
    obs: Mapping[str, Tensor], vectors: Mapping[str, Vector], *, squash: bool
) -> Tensor:
    """All but the images, [..., sum of widths] float.

    Args:
        obs: [..., *shape] per key.
        vectors: from `vectors_of`.
        squash: symlog of numbers; not of choices and bits.
    """
    parts = []
    for key, vector in vectors.items():
        flat = vector.flat(obs[key])
        parts.append(symlog(flat) if squash and not vector.groups and not vector.bits else flat)
    return torch.cat(parts, -1)


def coarse(images: Tensor, bits: int, *, noisy: bool) -> Tensor:
    """Images of fewer bits, as floats in [0, 1] (PlaNet: 5 bits).

    Args:
        images: [..., h, w, C] uint8.
        bits: kept of 8.
        noisy: add uniform noise as wide as a step, so that the values fill it; else take its middle.

    Returns:
        [..., h, w, C] float.
    """
    steps = 2**bits
    floor = images.div(256 // steps, rounding_mode="floor").float()
    shift = torch.rand_like(floor) if noisy else 0.5
    return (floor + shift) / steps


class ObservationEncoder(nn.Module):
    """Images through one network, everything else through another, side by side.

    Args:
        spaces: what there is to see.
        image: [n, C, size, size] to [n, E1] with an attribute `width` = E1; None without images.
        vector: [..., V] to [..., E2]; None without vectors.
        vector_width: E2.
        squash: symlog of vectors (Dreamer V3).
        image_size: images are resized to it, px.
        image_mean: what becomes 0, in [0, 1].
        image_std: what becomes 1 above it.
        bits: kept of an image's 8 (PlaNet: 5).
    """

    def __init__(
        self,
        spaces: Spaces,
        *,
        image: nn.Module | None = None,
        vector: nn.Module | None = None,
        vector_width: int = 0,
        squash: bool = True,
        image_size: int = 64,
        image_mean: float = 0.5,
        image_std: float = 1.0,
        bits: int = 8,
    ) -> None:
        super().__init__()
        self.images, self.vectors = image_keys(spaces), vectors_of(spaces)
        self.image, self.vector, self.squash = image, vector, squash
        self.image_size, self.mean, self.std = image_size, image_mean, image_std
        self.bits = bits
        self.width = vector_width + (int(getattr(image, "width", 0)) if image else 0)

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """[..., *shape] per key to [..., E]."""
        parts = []
        if self.vector is not None:
            parts.append(self.vector(side_by_side(obs, self.vectors, squash=self.squash)))
        if self.image is not None:
            floats = torch.cat([self._floats(obs[key]) for key in self.images], -3)
            lead = floats.shape[:-3]
            parts.append(self.image(floats.flatten(0, -4)).unflatten(0, lead))
        return torch.cat(parts, -1)

    def prepare(self, obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Observations [..., *shape] as both encoder and decoder shall see them in training."""
        if self.bits == 8:
            return dict(obs)
        noisy = {key: coarse(obs[key], self.bits, noisy=True) for key in self.images}
        return {**obs, **noisy}

    def _floats(self, images: Tensor) -> Tensor:
        if self.bits < 8 and images.dtype == torch.uint8:
            images = coarse(images, self.bits, noisy=False)
        count = images.shape[-1]
        mean, std = (self.mean,) * count, (self.std,) * count
        return to_float(images, size=self.image_size, mean=mean, std=std)


def _vector(key: str, space: gym.Space) -> Vector:
    if isinstance(space, gym.spaces.Box):
        return Vector(space.shape)
    if isinstance(space, gym.spaces.MultiBinary):
        return Vector(space.shape, bits=True)
    if isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete):
        one = isinstance(space, gym.spaces.Discrete)
        count = [space.n] if one else space.nvec.ravel()
        if np.any(space.start):
            raise SpaceError(
                f"observation {key!r} counts from {space.start}; wrap the environment so that it counts from 0"
            )
        return Vector(space.shape or (), tuple(int(n) for n in count))
    raise SpaceError(
        f"observation {key!r} is {space}; expected an image, a Box of numbers, a Discrete, a MultiDiscrete or "
        "a MultiBinary"
    )
