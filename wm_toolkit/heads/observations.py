"""Several observations, images and vectors together, out of one feature vector."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from wm_toolkit.errors import SpaceError
from wm_toolkit.heads.image import Image
from wm_toolkit.heads.normal import Normal
from wm_toolkit.heads.onehot import OneHot
from wm_toolkit.heads.squared import squared
from wm_toolkit.nn.image import resized

Part = Image | Normal | OneHot


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
        parts: by observation key.
    """

    parts: Mapping[str, Part]

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
        return {key: part.loss(_code(part, target[key])) for key, part in self.parts.items()}

    def log_prob(self, x: Mapping[str, Tensor]) -> Tensor:
        """[...] of all observations together."""
        terms = [part.log_prob(_code(part, x[key])) for key, part in self.parts.items()]
        return torch.stack(terms).sum(0)

    def entropy(self) -> Tensor:
        """[...] in nats, of all observations together."""
        return torch.stack([part.entropy() for part in self.parts.values()]).sum(0)

    def loss(self, target: Mapping[str, Tensor]) -> Tensor:
        """[...] of all observations together."""
        return torch.stack(list(self.losses(target).values())).sum(0)


def _code(part: Part, x: Tensor) -> Tensor:
    """A choice [...] as one-hot; anything else as it is."""
    if isinstance(part, OneHot):
        return functional.one_hot(x.long(), part.logits.shape[-1]).float()
    return x


class ObservationHead(nn.Module):
    """Features to every observation: one network for the images, one trunk for all else.

    Args:
        images: (h, w, C) of every image observation, stacked in this order.
        image: [n, F] to [n, sum of channels, size, size], resized to the observations; None without
            images.
        choices: which of them are one choice, not numbers.
        trunk: [..., F] to [..., U]; None without vectors.
        reads: a linear layer [..., U] to [..., width] for each of them.
        squash: vectors are read in symlog space (Dreamer V3).
        offset: added to an image that is not squeezed by a sigmoid; None takes the sigmoid.
        scale: of every squared error.
    """

    def __init__(
        self,
        *,
        images: Mapping[str, tuple[int, int, int]] | None = None,
        image: nn.Module | None = None,
        choices: frozenset[str] = frozenset(),
        trunk: nn.Module | None = None,
        reads: Mapping[str, nn.Module] | None = None,
        squash: bool = True,
        offset: float | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.images, self.image = dict(images or {}), image
        self.trunk, self.choices, self.squash = trunk, choices, squash
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
        return Observations(parts)

    def _pictures(self, features: Tensor) -> dict[str, Part]:
        assert self.image is not None
        lead, sizes = features.shape[:-1], list(self.images.values())
        pixels = resized(self.image(features.reshape(-1, features.shape[-1])), sizes[0][:2])
        pixels = pixels.float().movedim(1, -1)
        pixels = pixels.sigmoid() if self.offset is None else pixels + self.offset
        stacked = pixels.reshape(*lead, *pixels.shape[1:]).split([size[-1] for size in sizes], -1)
        return {k: Picture(p, self.scale) for k, p in zip(self.images, stacked, strict=True)}

    def _read(self, key: str, raw: Tensor) -> Part:
        if key in self.choices:
            return OneHot(raw, (raw.shape[-1],))
        return squared(raw, squash=self.squash, scale=self.scale)
