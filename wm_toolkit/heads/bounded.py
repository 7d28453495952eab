"""Distributions over numbers in [-1, 1]: a squashed Gaussian, and one that is cut."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from wm_toolkit.heads.normal import Normal

INSIDE = 1 - 1e-6
"""Largest size of an action: log-likelihoods are infinite at the bounds themselves."""


@dataclasses.dataclass(frozen=True)
class TanhNormal:
    """tanh of a Gaussian (Dreamer V1).

    What has no closed form is taken from draws, as in the official code; they are the same every time.

    Attributes:
        base: the Gaussian over [..., D].
        draws: how many.
    """

    base: Normal
    draws: int = 100

    @property
    def mean(self) -> Tensor:
        """[..., D] average of the draws."""
        return self._drawn()[0].mean(0)

    @property
    def mode(self) -> Tensor:
        """[..., D] the likeliest of the draws."""
        drawn, log_prob = self._drawn()
        best = log_prob.argmax(0, keepdim=True).unsqueeze(-1).expand(1, *drawn.shape[1:])
        return drawn.gather(0, best).squeeze(0)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """[..., D] reparameterised draw."""
        return self.base.sample(generator).tanh()

    def log_prob(self, x: Tensor) -> Tensor:
        """[...] log-density of x [..., D] in [-1, 1]."""
        inside = x.clamp(-INSIDE, INSIDE)
        return self.base.log_prob(inside.atanh()) - (1 - inside.square()).log().sum(-1)

    def entropy(self) -> Tensor:
        """[...] in nats, from the draws."""
        return -self._drawn()[1].mean(0)

    def loss(self, target: Tensor) -> Tensor:
        """[...] negative log-likelihood of target [..., D]."""
        return -self.log_prob(target)

    def _drawn(self) -> tuple[Tensor, Tensor]:
        """[draws, ..., D] and their log-densities [draws, ...], exact however near the bounds."""
        mean, std = self.base.mean, self.base.std
        own = torch.Generator(mean.device).manual_seed(0)
        shape = (self.draws, *mean.shape)
        noise = torch.empty(shape, device=mean.device, dtype=mean.dtype).normal_(generator=own)
        raw = mean + std * noise
        # log(1 - tanh(x)^2), which rounds to log 0 when written so.
        slope = 2 * (math.log(2) - raw - torch.nn.functional.softplus(-2 * raw))
        return raw.tanh(), self.base.log_prob(raw) - slope.sum(-1)


@dataclasses.dataclass(frozen=True)
class TruncatedNormal:
    """A Gaussian cut at -1 and 1 and normalised anew, dimension by dimension (Dreamer V2).

    Attributes:
        loc: [..., D] mean of the uncut Gaussian.
        scale: [..., D] its deviation.
    """

    loc: Tensor
    scale: Tensor

    @property
    def mean(self) -> Tensor:
        """[..., D] loc + scale (phi(a) - phi(b)) / Z."""
        low, high = self._bounds()
        return self.loc + self.scale * (_density(low) - _density(high)) / self._mass()

    @property
    def mode(self) -> Tensor:
        """[..., D] loc, within the bounds."""
        return self.loc.clamp(-1, 1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """[..., D] draw by the inverse of the distribution function; carries gradients."""
        share = torch.empty_like(self.loc).uniform_(generator=generator)
        low, high = self._bounds()
        below, above = _below(low), _below(high)
        rank = (below + share * (above - below)).clamp(1e-6, 1 - 1e-6)
        drawn = self.loc + self.scale * math.sqrt(2) * torch.erfinv(2 * rank - 1)
        # Rounding may leave the bounds; the gradient is that of the unrounded draw.
        return drawn + (drawn.clamp(-INSIDE, INSIDE) - drawn).detach()

    def log_prob(self, x: Tensor) -> Tensor:
        """[...] log-density of x [..., D] in [-1, 1]."""
        z = (x - self.loc) / self.scale
        each = -0.5 * z.square() - 0.5 * math.log(2 * math.pi) - (self.scale * self._mass()).log()
        return each.sum(-1)

    def entropy(self) -> Tensor:
        """[...] log(sqrt(2 pi e) scale Z) + (a phi(a) - b phi(b)) / (2 Z), summed over D."""
        low, high = self._bounds()
        mass = self._mass()
        edges = (low * _density(low) - high * _density(high)) / (2 * mass)
        return ((self.scale * mass).log() + 0.5 * math.log(2 * math.pi * math.e) + edges).sum(-1)

    def loss(self, target: Tensor) -> Tensor:
        """[...] negative log-likelihood of target [..., D]."""
        return -self.log_prob(target)

    def _bounds(self) -> tuple[Tensor, Tensor]:
        """The bounds in units of the deviation, a and b."""
        return (-1 - self.loc) / self.scale, (1 - self.loc) / self.scale

    def _mass(self) -> Tensor:
        """Z, the probability between the bounds."""
        low, high = self._bounds()
        return _below(high) - _below(low)


def _below(z: Tensor) -> Tensor:
    """The standard normal distribution function."""
    return torch.special.ndtr(z)


def _density(z: Tensor) -> Tensor:
    """The standard normal density."""
    return (-0.5 * z.square()).exp() / math.sqrt(2 * math.pi)
