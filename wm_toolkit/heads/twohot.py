"""A scalar as a distribution over fixed bins (two-hot), evenly spaced or as wide as rewards may be."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from wm_toolkit.nn.mlp import mlp

Squash = Literal["none", "symlog"]
Scale = Literal["symexp", "symlog", "linear"]


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|), any shape (Hafner et al. 2023)."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """Inverse of `symlog`, any shape."""
    return x.sign() * x.abs().expm1()


def two_hot(x: Tensor, bins: Tensor) -> Tensor:
    """Split the mass of x [...] between its two neighbouring bins [K]: [..., K], sums to 1.

    The expectation under the result is x, clamped into the range of the bins.
    """
    index, weight = neighbours(x, bins)
    target = torch.zeros(*x.shape, len(bins), device=x.device, dtype=x.dtype)
    return target.scatter(-1, index, weight)


def neighbours(x: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
    """The two bins around x [...], and the mass that each receives: indices and weights [..., 2]."""
    x = x.clamp(bins[0], bins[-1])
    above = torch.bucketize(x, bins, right=True).clamp_(1, len(bins) - 1)
    low, high = bins[above - 1], bins[above]
    weight = (x - low) / (high - low)
    return torch.stack([above - 1, above], -1), torch.stack([1 - weight, weight], -1)


@dataclasses.dataclass(frozen=True)
class TwoHot:
    """Categorical over bins, read as a scalar.

    Attributes:
        logits: [..., K].
        bins: [K] increasing.
        squash: "none" where bins are in the scalar's units. With "symlog" they are in symlog space:
            targets are squashed before they are coded, and the expectation over the bins is unsquashed.
    """

    logits: Tensor
    bins: Tensor
    squash: Squash = "none"

    @cached_property
    def log_probs(self) -> Tensor:
        """[..., K] normalised."""
        return self.logits.log_softmax(-1)

    @property
    def mean(self) -> Tensor:
        """[...] expectation over the bins.

        Terms are added from the outside in, so symmetric bins under equal logits give exactly 0.
        """
        weighted = self.logits.softmax(-1) * self.bins
        half = weighted.shape[-1] // 2
        pairs = weighted[..., :half] + weighted[..., -half:].flip(-1)
        middle = weighted[..., half : weighted.shape[-1] - half].sum(-1)
        return self._unsquash(pairs.sum(-1) + middle)

    @property
    def mode(self) -> Tensor:
        """[...] value of the likeliest bin."""
        return self._unsquash(self.bins[self.logits.argmax(-1)])

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """[...] value of a drawn bin; no gradient."""
        probs = self.logits.softmax(-1).detach()
        index = torch.multinomial(probs.reshape(-1, probs.shape[-1]), 1, generator=generator)
        return self._unsquash(self.bins[index.reshape(probs.shape[:-1])])

    def log_prob(self, x: Tensor) -> Tensor:
        """[...] log-likelihood of the two-hot code of x [...]."""
        x = symlog(x) if self.squash == "symlog" else x
        index, weight = neighbours(x, self.bins)
        return (self.log_probs.gather(-1, index) * weight).sum(-1)

    def entropy(self) -> Tensor:
        """[...] in nats."""
        return -(self.log_probs.exp() * self.log_probs).sum(-1)

    def loss(self, target: Tensor) -> Tensor:
        """[...] cross entropy to the two-hot code of target [...]."""
        return -self.log_prob(target)

    def _unsquash(self, x: Tensor) -> Tensor:
        return symexp(x) if self.squash == "symlog" else x


def symmetric_bins(count: int, limit: float, *, scale: Scale = "linear") -> Tensor:
    """[count] bins over [-limit, limit], each the exact negative of its mirror image, any middle one 0.

    With scale "symexp" the evenly spaced numbers become their symexp.
    """
    even = torch.linspace(-limit, limit, count, dtype=torch.float64)
    even = (even - even.flip(0)) / 2
    return (symexp(even) if scale == "symexp" else even).float()


class TwoHotHead(nn.Module):
    """MLP from features [..., F] to a TwoHot over [...]; the last layer starts at zero.

    Args:
        features: F.
        hidden: widths of the hidden layers.
        bins: K.
        limit: the evenly spaced numbers span [-limit, limit].
        scale: "symexp" places the bins at their symexp, so that the expectation is unbiased at any
            size (Dreamer V3 as published); "symlog" squashes targets instead (its first preprint);
            "linear" takes bins and targets as they are.
    """

    bins: Tensor

    def __init__(
        self,
        features: int,
        *,
        hidden: tuple[int, ...] = (),
        bins: int = 255,
        limit: float = 20.0,
        scale: Scale = "symexp",
    ) -> None:
        super().__init__()
        self.squash: Squash = "symlog" if scale == "symlog" else "none"
        self.net = mlp(features, hidden, bins)
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.register_buffer("bins", symmetric_bins(bins, limit, scale=scale), persistent=False)

    def forward(self, features: Tensor) -> TwoHot:
        """[..., F] to a TwoHot over [...]."""
        return TwoHot(self.net(features).float(), self.bins, self.squash)
