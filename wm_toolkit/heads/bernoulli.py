"""A binary event, such as "the episode goes on"."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from wm_toolkit.nn.mlp import mlp


@dataclasses.dataclass(frozen=True)
class Bernoulli:
    """P(x = 1) = sigmoid(logit), [...] each."""

    logit: Tensor

    @property
    def mean(self) -> Tensor:
        """[...] probability of 1."""
        return self.logit.sigmoid()

    @property
    def mode(self) -> Tensor:
        """[...] 1 where it is the likelier value."""
        return (self.logit > 0).float()

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """[...] draw in {0, 1}; no gradient."""
        return torch.bernoulli(self.mean.detach(), generator=generator)

    def log_prob(self, x: Tensor) -> Tensor:
        """[...] log-likelihood of x in [0, 1]."""
        return -functional.binary_cross_entropy_with_logits(
            self.logit, x.to(self.logit), reduction="none"
        )

    def entropy(self) -> Tensor:
        """[...] in nats."""
        return functional.softplus(self.logit) - self.logit * self.mean

    def loss(self, target: Tensor) -> Tensor:
        """[...] cross entropy to target in [0, 1]."""
        return -self.log_prob(target)


@dataclasses.dataclass(frozen=True)
class Bits(Bernoulli):
    """Independent bits over the last axis of `logit` [..., n], scored together."""

    def log_prob(self, x: Tensor) -> Tensor:
        """[...] log-likelihood of bits [..., n], summed over them."""
        return super().log_prob(x).sum(-1)

    def entropy(self) -> Tensor:
        """[...] in nats, summed over the bits."""
        return super().entropy().sum(-1)


class BernoulliHead(nn.Module):
    """MLP from features [..., F] to a Bernoulli over [...]."""

    def __init__(self, features: int, *, hidden: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.net = mlp(features, hidden, 1)

    def forward(self, features: Tensor) -> Bernoulli:
        """[..., F] to a Bernoulli over [...]."""
        return Bernoulli(self.net(features).float().squeeze(-1))
