"""Model-predictive path integral control."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from wm_toolkit.config import check_ranges, one_of
from wm_toolkit.planning.base import PLANNERS
from wm_toolkit.planning.gaussian import Gaussian, GaussianPlanner
from wm_toolkit.planning.problem import Problem

TINY = 1e-8
"""Keeps the relative temperature defined when all elites score alike."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MPPI(GaussianPlanner):
    """Averages candidates by exponential weights (Williams et al. 2017; elites as in TD-MPC2).

    w_k proportional to exp(score_k / temperature) over the elites; mean <- sum w_k a_k,
    std^2 <- sum w_k (a_k - mean)^2. With elites = samples and deviation = "fixed" this is the
    original algorithm; TD-MPC2 (Hansen et al. 2024) refits it and keeps 64 of 512.

    Example:
        >>> plan = MPPI(horizon=5).plan(model, state, Reward(), generator=generator)

    Args:
        temperature: how far below the best a candidate still counts.
        temperature_unit: "spread" measures it in the root mean square by which the elites score
            below the best, which suits objectives of any scale; "score" in the objective's own
            units, as published.
        deviation: "refit" to the weighted elites, or stay "fixed" at `init_std`.
    """

    samples: int = 512
    iterations: int = 6
    elites: int = 64
    min_std: float = 0.05
    temperature: float = 0.5
    temperature_unit: Literal["spread", "score"] = "spread"
    deviation: Literal["refit", "fixed"] = "refit"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, temperature="[1e-8, inf)")
        for name, known in (
            ("temperature_unit", ("spread", "score")),
            ("deviation", ("refit", "fixed")),
        ):
            one_of(self, name, known)

    def refit(self, problem: Problem, belief: Gaussian, elites: Tensor, scores: Tensor) -> Gaussian:
        """Weighted mean and deviation of the elites [B, K, H, A]."""
        weight = self.weights(scores)[..., None, None]
        mean = (weight * elites).sum(1)
        std = belief.std
        if self.deviation == "refit":
            std = (weight * (elites - mean.unsqueeze(1)).square()).sum(1).sqrt()
        return self.blend(belief, mean, std, elites)

    def weights(self, scores: Tensor) -> Tensor:
        """[B, K] weights that sum to 1, from scores [B, K] with the best first."""
        below = (scores - scores[:, :1]).nan_to_num(nan=0.0, neginf=-torch.inf)
        if self.temperature_unit == "score":
            return (below / self.temperature).softmax(1)
        finite = below.isfinite()
        square = below.square().where(finite, 0.0).sum(1, keepdim=True)
        unit = (square / finite.sum(1, keepdim=True)).sqrt().clamp_min(TINY)
        return (below / (self.temperature * unit)).softmax(1)


PLANNERS.register("mppi", MPPI)
