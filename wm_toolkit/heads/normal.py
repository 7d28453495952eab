"""Gaussian read-outs: regression with unit variance, or a learned deviation."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn

from wm_toolkit.nn.mlp import mlp


@dataclasses.dataclass(frozen=True)
class Normal:
    """Independent Gaussians over the last axis, or over a scalar event.

    Attributes:
        mean: [..., D], or [...] for a scalar event.
        std: like mean.
        event: 1 if the last axis is the event, 0 if every element is one.
    """

    mean: Tensor
    std: Tensor
    event: int = 1

    @property
    def mode(self) -> Tensor:
        """Equal to the mean, [..., D]."""
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """[..., D] reparameterised draw."""
        noise = torch.empty_like(self.mean).normal_(generator=generator)
        return self.mean + self.std * noise

    def log_prob(self, x: Tensor) -> Tensor:
        """[...] log-density of x [..., D]."""
        z = (x - self.mean) / self.std
        return self._sum(-0.5 * z.square() - self.std.log() - 0.5 * math.log(2 * math.pi))

    def entropy(self) -> Tensor:
        """[...] in nats."""
        return self._sum(0.5 + 0.5 * math.log(2 * math.pi) + self.std.log())

    def loss(self, target: Tensor) -> Tensor:
        """[...] negative log-likelihood of target [..., D]."""
        return -self.log_prob(target)

    def _sum(self, x: Tensor) -> Tensor:
        return x.sum(-1) if self.event else x


@dataclasses.dataclass(frozen=True)
class Regression(Normal):
    """A Gaussian of unit deviation whose loss is the plain squared error, averaged over the event."""

    def loss(self, target: Tensor) -> Tensor:
        """[...] mean squared error to target [..., D]."""
        error = (self.mean - target).square()
        return error.mean(-1) if self.event else error


class NormalHead(nn.Module):
    """MLP to a Gaussian over [..., width] (or a scalar [...] when width is None).

    Args:
        features: F, width of the input.
        width: D, width of the event; None for a scalar per row.
        hidden: widths of the hidden layers; empty for a linear read-out.
        learned_std: predict the deviation (softplus, at least `min_std`) instead of fixing it to 1.
    """

    def __init__(
        self,
        features: int,
        width: int | None = None,
        *,
        hidden: tuple[int, ...] = (),
        learned_std: bool = False,
        min_std: float = 0.1,
    ) -> None:
        super().__init__()
        self.width, self.learned_std, self.min_std = width, learned_std, min_std
        self.net = mlp(features, hidden, (width or 1) * (2 if learned_std else 1))

    def forward(self, features: Tensor) -> Normal:
        """[..., F] to a Normal over [..., D] (or [...])."""
        out = self.net(features)
        event = 1
        if self.width is None:
            out, event = out.squeeze(-1) if not self.learned_std else out, 0
        if not self.learned_std:
            return Regression(out, torch.ones_like(out), event)
        mean, raw = out.chunk(2, -1)
        std = nn.functional.softplus(raw) + self.min_std
        if event == 0:
            mean, std = mean.squeeze(-1), std.squeeze(-1)
        return Normal(mean, std, event)
