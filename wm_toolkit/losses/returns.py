"""Lambda-returns, and the scale that makes them comparable between tasks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_toolkit.nn.distributed import processes, rank, sum_over_processes


def lambda_return(reward: Tensor, discount: Tensor, value: Tensor, lam: float = 0.95) -> Tensor:
    """Returns that mix all n-step bootstraps (Sutton 1988), as used since Dreamer V1.

        R_t = r_{t+1} + c_{t+1} ((1 - lam) v_{t+1} + lam R_{t+1}),   R_H = v_H

    Args:
        reward: [B, H] r_1 ... r_H, on arriving in states 1 ... H.
        discount: [B, H] c_1 ... c_H, gamma times the probability of going on.
        value: [B, H] v_1 ... v_H.
        lam: 0 bootstraps at once, 1 at the end only.

    Returns:
        [B, H] R_0 ... R_{H-1}.
    """
    direct = reward + discount * value * (1 - lam)
    current, found = value[:, -1], []
    for t in range(reward.shape[1] - 1, -1, -1):
        current = direct[:, t] + lam * discount[:, t] * current
        found.append(current)
    return torch.stack(found[::-1], 1)


class ReturnScale(nn.Module):
    """Running range of the returns between two percentiles (Dreamer V3).

        S = max(least, ema(percentile_high(R)) - ema(percentile_low(R)))

    The averages begin at 0 and are not corrected for it, as published. Percentiles are those of all
    processes' returns, equally many each.

    Args:
        rate: weight of a new batch in the averages.
        low: lower percentile, in [0, 1].
        high: upper one.
        least: returns that differ by less are not blown up.
    """

    range: Tensor

    def __init__(
        self, *, rate: float = 0.01, low: float = 0.05, high: float = 0.95, least: float = 1.0
    ) -> None:
        super().__init__()
        self.rate, self.least = rate, least
        self.register_buffer("shares", torch.tensor([low, high]), persistent=False)
        self.register_buffer("range", torch.zeros(2))

    @torch.no_grad()
    def update(self, returns: Tensor) -> Tensor:
        """Take a batch of returns of any shape into account; the scale [] to divide by."""
        shares = self.get_buffer("shares")
        found = torch.quantile(_everyones(returns.float().flatten()), shares)
        self.range.lerp_(found, self.rate)
        return self.scale

    @property
    def scale(self) -> Tensor:
        """[] the present scale."""
        return (self.range[1] - self.range[0]).clamp(min=self.least)


def _everyones(x: Tensor) -> Tensor:
    """[P n] the values [n] of all P processes, one after the other."""
    if processes() == 1:
        return x
    seats = x.new_zeros(processes(), len(x))
    seats[rank()] = x
    return sum_over_processes(seats).flatten()
