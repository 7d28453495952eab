"""Mixtures of Gaussians: a density with several modes (mixture density networks)."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class Mixture:
    """K Gaussians over every number of the last axis.

    Attributes:
        logits: [..., D, K] weights of each number's own mixture, or [..., K] one choice for all numbers.
        means: [..., D, K].
        log_std: [..., D, K].
    """

    logits: Tensor
    means: Tensor
    log_std: Tensor

    @property
    def shared(self) -> bool:
        """Whether one choice of component is made for all numbers together."""
        return self.logits.ndim < self.means.ndim

    @property
    def mean(self) -> Tensor:
        """[..., D] expectation."""
        return (self._weights * self.means).sum(-1)

    @property
    def std(self) -> Tensor:
        """[..., D] deviation of every number by itself."""
        second = (self._weights * ((2 * self.log_std).exp() + self.means.square())).sum(-1)
        return (second - self.mean.square()).clamp(min=0).sqrt()

    @property
    def mode(self) -> Tensor:
        """[..., D] the likeliest of the components' means."""
        at = self.means.movedim(-1, 0)
        if self.shared:
            best = self._joint(at).argmax(0, keepdim=True).unsqueeze(-1).expand_as(at[:1])
        else:
            best = self._each(at).argmax(0, keepdim=True)
        return at.gather(0, best).squeeze(0)

    def tempered(self, temperature: float) -> Mixture:
        """The same mixture at another temperature: logits / tau, deviations * sqrt(tau).

        Above 1 rare components and wide noise come up more often; towards 0 the likeliest component's mean
        is left (Ha and Schmidhuber 2018, section 4).
        """
        shift = 0.5 * math.log(temperature)
        return Mixture(self.logits / temperature, self.means, self.log_std + shift)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """[..., D] draw; the gradient reaches the component that was drawn."""
        # Gumbel-max: one draw in one pass, whatever the leading axes.
        uniform = torch.empty_like(self.logits).uniform_(1e-12, 1, generator=generator)
        chosen = (self.logits.detach() - (-uniform.log()).log()).argmax(-1, keepdim=True)
        chosen = chosen.unsqueeze(-2) if self.shared else chosen
        chosen = chosen.expand(*self.means.shape[:-1], 1)
        mean, log_std = (x.gather(-1, chosen).squeeze(-1) for x in (self.means, self.log_std))
        return mean + log_std.exp() * torch.empty_like(mean).normal_(generator=generator)

    def log_prob(self, x: Tensor) -> Tensor:
        """[...] log-density of x [..., D]."""
        return self._joint(x) if self.shared else self._each(x).sum(-1)

    def entropy(self) -> Tensor:
        """[...] upper bound in nats, which has no closed form itself: of Gaussians as wide as this."""
        return (0.5 * math.log(2 * math.pi * math.e) + self.std.log()).sum(-1)

    def loss(self, target: Tensor) -> Tensor:
        """[...] negative log-likelihood of target [..., D], the mean over its numbers."""
        return -self.log_prob(target) / target.shape[-1]

    @property
    def _weights(self) -> Tensor:
        """[..., D, K] or [..., 1, K] probabilities."""
        weights = self.logits.softmax(-1)
        return weights.unsqueeze(-2) if self.shared else weights

    def _components(self, x: Tensor) -> Tensor:
        """[..., D, K] log-density of every number under every component."""
        z = (x.unsqueeze(-1) - self.means) * (-self.log_std).exp()
        return -0.5 * z.square() - self.log_std - 0.5 * math.log(2 * math.pi)

    def _each(self, x: Tensor) -> Tensor:
        """[..., D] log-density of every number by itself."""
        return (self.logits.log_softmax(-1) + self._components(x)).logsumexp(-1)

    def _joint(self, x: Tensor) -> Tensor:
        """[...] log-density where all numbers share the choice."""
        return (self.logits.log_softmax(-1) + self._components(x).sum(-2)).logsumexp(-1)


class MixtureHead(nn.Module):
    """Linear read-out of features [..., F] as a Mixture over [..., D].

    Args:
        features: F.
        width: D.
        components: K.
        shared: one choice of component for all D numbers (the port of Tallec et al.), not one each.
    """

    def __init__(
        self, features: int, width: int, *, components: int = 5, shared: bool = False
    ) -> None:
        super().__init__()
        self.width, self.components, self.shared = width, components, shared
        weights = components if shared else width * components
        self.split = [weights, width * components, width * components]
        self.net = nn.Linear(features, sum(self.split))

    def forward(self, features: Tensor) -> Mixture:
        """[..., F] to a Mixture over [..., D]."""
        logits, means, log_std = self.net(features).split(self.split, -1)
        shape = (self.width, self.components)
        logits = logits if self.shared else logits.unflatten(-1, shape)
        return Mixture(logits, means.unflatten(-1, shape), log_std.unflatten(-1, shape))
