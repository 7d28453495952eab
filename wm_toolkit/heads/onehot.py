"""A choice among n, or several independent choices side by side, as one-hot vectors."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from wm_toolkit.nn.mlp import mlp


@dataclasses.dataclass(frozen=True)
class OneHot:
    """Independent categoricals over consecutive groups of the last axis.

    Attributes:
        logits: [..., sum(groups)].
        groups: widths of the groups; one group is a plain categorical.
    """

    logits: Tensor
    groups: tuple[int, ...]

    @property
    def log_probs(self) -> Tensor:
        """[..., sum(groups)] normalised within each group."""
        return self._each(lambda logits: logits.log_softmax(-1))

    @property
    def mean(self) -> Tensor:
        """[..., sum(groups)] probabilities."""
        return self.log_probs.exp()

    @property
    def mode(self) -> Tensor:
        """[..., sum(groups)] one-hot of the likeliest choice in each group."""
        return self._each(lambda logits: _one_hot(logits.argmax(-1), logits))

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """[..., sum(groups)] one-hot draw; its gradient is the probabilities' (straight through)."""

        def draw(logits: Tensor) -> Tensor:
            probs = logits.softmax(-1)
            flat = probs.detach().reshape(-1, probs.shape[-1])
            index = torch.multinomial(flat, 1, generator=generator).reshape(probs.shape[:-1])
            return _one_hot(index, probs) + (probs - probs.detach())

        return self._each(draw)

    def log_prob(self, x: Tensor) -> Tensor:
        """[...] log-likelihood of one-hot (or probability) vectors x [..., sum(groups)]."""
        return (self.log_probs * x).sum(-1)

    def entropy(self) -> Tensor:
        """[...] in nats, summed over the groups."""
        log_probs = self.log_probs
        return -(log_probs.exp() * log_probs).sum(-1)

    def loss(self, target: Tensor) -> Tensor:
        """[...] cross entropy to target [..., sum(groups)] (one-hot or probabilities)."""
        return -self.log_prob(target)

    def _each(self, fn) -> Tensor:  # type: ignore[no-untyped-def]
        return torch.cat([fn(part) for part in self.logits.split(list(self.groups), -1)], -1)


def _one_hot(index: Tensor, like: Tensor) -> Tensor:
    return functional.one_hot(index, like.shape[-1]).to(like.dtype)


class OneHotHead(nn.Module):
    """MLP from features [..., F] to categoricals over groups of [..., sum(groups)]."""

    def __init__(
        self, features: int, groups: tuple[int, ...], *, hidden: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        self.groups = groups
        self.net = mlp(features, hidden, sum(groups))

    def forward(self, features: Tensor) -> OneHot:
        """[..., F] to a OneHot over [..., sum(groups)]."""
        return OneHot(self.net(features), self.groups)
