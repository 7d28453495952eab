"""Policies: features to a distribution over encoded actions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

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
        mean, raw = self.net(features).chunk(2, -1)
        return Normal(mean.tanh(), (self.high - self.low) * (raw + 2).sigmoid() + self.low)


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
        logits = self.net(features)
        if not self.unimix:
            return OneHot(logits, self.groups)
        mixed = [
            (functional.softmax(part, -1) * (1 - self.unimix) + self.unimix / part.shape[-1]).log()
            for part in logits.split(list(self.groups), -1)
        ]
        return OneHot(torch.cat(mixed, -1), self.groups)
