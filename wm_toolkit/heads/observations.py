"""Several observations, images and vectors together, out of one feature vector."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from wm_toolkit.errors import SpaceError
from wm_toolkit.heads.bernoulli import Bits
from wm_toolkit.heads.image import Image
from wm_toolkit.heads.normal import Normal
from wm_toolkit.heads.onehot import OneHot
from wm_toolkit.heads.squared import squared
from wm_toolkit.nn.image import resized

Part = Image | Normal | OneHot | Bits


@dataclasses.dataclass(frozen=True)
class Vector:
    """How an observation that is no image is read: as numbers, as bits, or as choices.

    Attributes:
        shape: of the observation.
        groups: classes of each of its choices; () for numbers and bits.
        bits: whether all its numbers are 0 or 1.
    """

    shape: tuple[int, ...]
    groups: tuple[int, ...] = ()
    bits: bool = False

    @property
    def width(self) -> int:
        """V: of what is read."""
        return sum(self.groups) or math.prod(self.shape)

    def flat(self, x: Tensor) -> Tensor:
        """[..., *shape] to [..., V] float: numbers side by side, choices as one-hot."""
        lead = x.shape[: x.ndim - len(self.shape)]
        if not self.groups:
            return x.float().reshape(*lead, self.width)
        each = x.long().reshape(*lead, len(self.groups)).unbind(-1)
        hot = [functional.one_hot(c, n) for c, n in zip(each, self.groups, strict=True)]
        return torch.cat(hot, -1).float()

    def read(self, raw: Tensor, *, squash: bool, scale: float) -> Part:
        """What a network says [..., V], as an output over flat observations; see `ObservationHead`."""
        if self.groups:
            return OneHot(raw, self.groups)
        return Bits(raw) if self.bits else squared(raw, squash=squash, scale=scale)


@dataclasses.dataclass(frozen=True)
class Picture(Image):
    """An image whose loss is the squared error, summed over its pixels (and scaled)."""

    scale: float = 1.0

    def loss(self, target: Tensor) -> Tensor:
        """[...] for images [..., h, w, C] (uint8, or float in [0, 1])."""
        if target.dtype == torch.uint8:
            target = target.float() / 255
        return self.scale * (self.mean - target).square().sum((-3, -2, -1))


@dataclasses.dataclass(frozen=True)
class Observations:
    """One output for every observation.

    Attributes:
        parts: by observation key; over [..., V] of what is no image.
        vectors: how these become flat; one that is not named here is flat already.
    """

    parts: Mapping[str, Part]
    vectors: Mapping[str, Vector] = dataclasses.field(default_factory=dict)

    @property
    def picture(self) -> Image:
        """The first image.

        Raises:
            SpaceError: if there is none.
        """
        for part in self.parts.values():
            if isinstance(part, Image):
                return part
        raise SpaceError(f"no observation is an image; there are {sorted(self.parts)}")

    @property
    def mean(self) -> Tensor:
        """The expectation of the first image, or of the only vector."""
        images = [part for part in self.parts.values() if isinstance(part, Image)]
        return (images or list(self.parts.values()))[0].mean

    @property
    def mode(self) -> Tensor:
        """As `mean`, most likely value."""
        images = [part for part in self.parts.values() if isinstance(part, Image)]
        return (images or list(self.parts.values()))[0].mode

    @property
    def uint8(self) -> Tensor:
        """[..., h, w, C] the first image, for viewing."""
        return self.picture.uint8

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """As `mean`, one draw."""
        images = [part for part in self.parts.values() if isinstance(part, Image)]
        return (images or list(self.parts.values()))[0].sample(generator)

    def losses(self, target: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """[...] of every observation [..., *shape]."""
        return {key: part.loss(self._flat(key, target[key])) for key, part in self.parts.items()}

    def log_prob(self, x: Mapping[str, Tensor]) -> Tensor:
        """[...] of all observations together."""
        terms = [part.log_prob(self._flat(key, x[key])) for key, part in self.parts.items()]
        return torch.stack(terms).sum(0)

    def entropy(self) -> Tensor:
        """[...] in nats, of all observations together."""
        return torch.stack([part.entropy() for part in self.parts.values()]).sum(0)

    def loss(self, target: Mapping[str, Tensor]) -> Tensor:
        """[...] of all observations together."""
        return torch.stack(list(self.losses(target).values())).sum(0)

    def _flat(self, key: str, x: Tensor) -> Tensor:
        return self.vectors[key].flat(x) if key in self.vectors else x


class ObservationHead(nn.Module):
    """Features to every observation: one network for the images, one trunk for all else.

    Args:
        images: (h, w, C) of every image observation, stacked in this order.
        image: [n, F] to [n, sum of channels, size, size], resized to the observations; None without
            images.
        vectors: how the others become flat; one that is not named here is a vector of numbers.
        trunk: [..., F] to [..., U]; None without vectors.
        reads: a linear layer [..., U] to [..., V] for each of them.
        squash: numbers are read in symlog space (Dreamer V3).
        offset: added to an image that is not squeezed by a sigmoid; None takes the sigmoid.
        scale: of every squared error.
    """

    def __init__(
        self,
        *,
        images: Mapping[str, tuple[int, int, int]] | None = None,
        image: nn.Module | None = None,
        vectors: Mapping[str, Vector] | None = None,
        trunk: nn.Module | None = None,
        reads: Mapping[str, nn.Module] | None = None,
        squash: bool = True,
        offset: float | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.images, self.image = dict(images or {}), image
        self.trunk, self.vectors, self.squash = trunk, dict(vectors or {}), squash
        self.reads = nn.ModuleDict(dict(reads or {}))
        self.offset, self.scale = offset, scale

    def forward(self, features: Tensor) -> Observations:
        """[..., F] to all observations."""
        parts: dict[str, Part] = {}
        if self.image is not None:
            parts |= self._pictures(features)
        if self.trunk is not None:
            hidden = self.trunk(features)
            parts |= {
                key: self._read(key, read(hidden).float()) for key, read in self.reads.items()
            }
        return Observations(parts, self.vectors)

    def _pictures(self, features: Tensor) -> dict[str, Part]:
        assert self.image is not None
        lead, sizes = features.shape[:-1], list(self.images.values())
        pixels = resized(self.image(features.reshape(-1, features.shape[-1])), sizes[0][:2])
        pixels = pixels.float().movedim(1, -1)
        pixels = pixels.sigmoid() if self.offset is None else pixels + self.offset
        stacked = pixels.reshape(*lead, *pixels.shape[1:]).split([size[-1] for size in sizes], -1)
        return {k: Picture(p, self.scale) for k, p in zip(self.images, stacked, strict=True)}

    def _read(self, key: str, raw: Tensor) -> Part:
        vector = self.vectors.get(key, Vector(raw.shape[-1:]))
        return vector.read(raw, squash=self.squash, scale=self.scale)
