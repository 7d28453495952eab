"""Policies: features to a distribution over encoded actions, in float32 whatever the networks use."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from wm_toolkit.heads.bounded import TanhNormal, TruncatedNormal
from wm_toolkit.heads.normal import Normal
from wm_toolkit.heads.onehot import OneHot


class BoxPolicy(nn.Module):
    """Normal(tanh(mean), std) with std = (high - low) sigmoid(s + 2) + low, not squashed (Dreamer V3).

    The environment clips; the log-probability is that of the raw sample.

    Args:
        net: [..., F] to [..., 2 A], means and raw deviations.
        low: smallest deviation.
        high: largest deviation.
    """

    def __init__(self, net: nn.Module, *, low: float = 0.1, high: float = 1.0) -> None:
        super().__init__()
        self.net, self.low, self.high = net, low, high

    def forward(self, features: Tensor) -> Normal:
        """[..., F] to a Normal over [..., A]."""
        mean, raw = self.net(features).float().chunk(2, -1)
        return Normal(mean.tanh(), (self.high - self.low) * (raw + 2).sigmoid() + self.low)


class TanhPolicy(nn.Module):
    """tanh of Normal(5 tanh(mean / 5), softplus(s + softplus^-1(start)) + 1e-4) (Dreamer V1).

    Args:
        net: [..., F] to [..., 2 A], means and raw deviations.
        start: deviation before anything is learnt.
        bound: means of the Gaussian stay below it, so that tanh keeps a slope.
        low: smallest deviation.
    """

    def __init__(
        self, net: nn.Module, *, start: float = 5.0, bound: float = 5.0, low: float = 1e-4
    ) -> None:
        super().__init__()
        self.net, self.bound, self.low = net, bound, low
        self.shift = math.log(math.expm1(start))

    def forward(self, features: Tensor) -> TanhNormal:
        """[..., F] to a TanhNormal over [..., A]."""
        mean, raw = self.net(features).float().chunk(2, -1)
        std = functional.softplus(raw + self.shift) + self.low
        return TanhNormal(Normal(self.bound * (mean / self.bound).tanh(), std))


class TruncatedPolicy(nn.Module):
    """A Gaussian cut at -1 and 1: loc = tanh(mean), scale = 2 sigmoid(s / 2) + low (Dreamer V2).

    Args:
        net: [..., F] to [..., 2 A], means and raw deviations.
        low: smallest deviation.
    """

    def __init__(self, net: nn.Module, *, low: float = 0.1) -> None:
        super().__init__()
        self.net, self.low = net, low

    def forward(self, features: Tensor) -> TruncatedNormal:
        """[..., F] to a TruncatedNormal over [..., A]."""
        mean, raw = self.net(features).float().chunk(2, -1)
        return TruncatedNormal(mean.tanh(), 2 * (raw / 2).sigmoid() + self.low)


class ChoicePolicy(nn.Module):
    """Independent categoricals over groups, mixed with a share of the uniform distribution.

    Args:
        net: [..., F] to [..., sum(groups)].
        groups: widths of the choices.
        unimix: share of the uniform distribution (the papers' Dreamer V3: 0.01; its code: 0).
    """

    def __init__(self, net: nn.Module, groups: tuple[int, ...], *, unimix: float = 0.0) -> None:
        super().__init__()
        self.net, self.groups, self.unimix = net, groups, unimix

    def forward(self, features: Tensor) -> OneHot:
        """[..., F] to a OneHot over [..., sum(groups)]."""
        logits = self.net(features).float()
        if not self.unimix:
            return OneHot(logits, self.groups)
        mixed = [
            (functional.softmax(part, -1) * (1 - self.unimix) + self.unimix / part.shape[-1]).log()
            for part in logits.split(list(self.groups), -1)
        ]
        return OneHot(torch.cat(mixed, -1), self.groups)
