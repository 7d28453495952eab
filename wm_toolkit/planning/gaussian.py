"""Sampling planners whose belief is a diagonal Gaussian over plans: CEM, iCEM and MPPI share this."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from wm_toolkit.config import check_ranges, one_of
from wm_toolkit.errors import PlanError
from wm_toolkit.planning.noise import block_noise
from wm_toolkit.planning.problem import Problem
from wm_toolkit.planning.sampling import AdaptivePlanner
from wm_toolkit.structs import Struct


@dataclasses.dataclass(frozen=True)
class Gaussian(Struct):
    """A belief about good plans.

    Attributes:
        mean: [B, H, A].
        std: [B, H, A].
        elites: [B, K, H, A] the best candidates of the last iteration, best first; None before.
    """

    mean: Tensor
    std: Tensor
    elites: Tensor | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianPlanner(AdaptivePlanner[Gaussian]):
    """Samples around a mean, clips to the action bounds, refits mean and deviation.

    Args:
        init_std: deviation of the first candidates, in units of the encoded action.
        warm_std: the same for steps that a warm start knows; None takes `init_std`. A smaller one looks
            near the plan that is carried over, so that with a tolerance few iterations are needed.
        min_std: the deviation never falls below.
        least: how `min_std` keeps it from falling: as a "floor", or its square "added" to the variance
            (PlaNet's code: 1e-6).
        mean_candidate: the present mean is a candidate, so that no iteration is a step back; PlaNet's code
            has it not.
        noise_exponent: candidates differ by noise with power spectrum 1 / f^exponent over raw
            environment steps (0 white; 2 to 3 makes smooth, far-reaching motion).
    """

    init_std: float = 1.0
    warm_std: float | None = None
    min_std: float = 0.0
    least: Literal["floor", "added"] = "floor"
    mean_candidate: bool = True
    noise_exponent: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, {"[0, inf)": ("init_std", "warm_std", "min_std")})
        one_of(self, "least", ("floor", "added"))

    def begin(self, problem: Problem) -> Gaussian:
        """The warm start, with the initial deviations.

        Raises:
            PlanError: for discrete actions.
        """
        if problem.model.spaces.discrete:
            raise PlanError(
                f"{type(self).__name__} searches continuous actions, but the action space is "
                f"{problem.model.spaces.action}; use CategoricalCEM or RandomShooting"
            )
        std = torch.full_like(problem.start, self.init_std)
        if self.warm_std is not None:
            known = (problem.start != 0).any(-1, keepdim=True)
            std = std.masked_fill(known, self.warm_std)
        return Gaussian(problem.start, std)

    def propose(self, problem: Problem, belief: Gaussian, iteration: int) -> Tensor:
        """[B, N, H, A] Gaussian candidates within bounds; the first are those carried over."""
        size, horizon, width = belief.mean.shape
        candidates = block_noise(
            (size, self.count(iteration), horizon, width),
            problem.model.spaces.block,
            self.noise_exponent,
            generator=problem.generator,
            device=belief.mean.device,
        )
        candidates.mul_(belief.std.unsqueeze(1)).add_(belief.mean.unsqueeze(1))
        candidates.clamp_(problem.low, problem.high)
        carried = self.carried(belief, iteration)
        candidates[:, : carried.shape[1]] = carried
        return candidates

    def count(self, iteration: int) -> int:
        """N of an iteration."""
        return self.samples

    def carried(self, belief: Gaussian, iteration: int) -> Tensor:
        """[B, k, H, A] plans scored as they are: the mean, if it is a candidate."""
        return belief.mean.unsqueeze(1)[:, : int(self.mean_candidate)]

    def blend(self, belief: Gaussian, mean: Tensor, std: Tensor, elites: Tensor) -> Gaussian:
        """The new belief from the mean and deviation [B, H, A] of elites [B, K, H, A]: momentum, then floor."""
        if self.momentum:
            mean, std = mean.lerp(belief.mean, self.momentum), std.lerp(belief.std, self.momentum)
        if self.min_std and self.least == "added":
            std = (std.square() + self.min_std**2).sqrt()
        elif self.min_std:
            std = std.clamp_min(self.min_std)
        return Gaussian(mean, std, elites)

    def spread(self, belief: Gaussian) -> Tensor:
        """[B] mean deviation over horizon and action."""
        return belief.std.mean((1, 2))

    def centre(self, problem: Problem, belief: Gaussian) -> Tensor:
        """[B, H, A] the mean."""
        return belief.mean
