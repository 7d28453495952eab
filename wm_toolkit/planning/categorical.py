"""The cross-entropy method for discrete actions."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from wm_toolkit.errors import ConfigError, PlanError
from wm_toolkit.planning.base import PLANNERS
from wm_toolkit.planning.problem import Problem
from wm_toolkit.planning.sampling import AdaptivePlanner
from wm_toolkit.structs import Struct

WARM_SHARE = 0.5
"""Probability that the first candidates take from a warm start; the rest stays uniform."""


@dataclasses.dataclass(frozen=True)
class Categorical(Struct):
    """A belief about good plans: [B, H, A] probabilities, `groups` of which sum to 1 each."""

    probs: Tensor
    groups: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CategoricalCEM(AdaptivePlanner[Categorical]):
    """CEM over Discrete and MultiDiscrete actions: probabilities move to the elites' frequencies.

    p <- (1 - uniform_share) (momentum p + (1 - momentum) mean of the elites) + uniform_share / n
    (Rubinstein 1999). Candidate 0 is the most likely plan, which is also the one returned by
    execute = "mean".

    Example:
        >>> plan = CategoricalCEM(horizon=8).plan(model, state, Reward(), generator=generator)

    Args:
        uniform_share: keeps every choice possible, in [0, 1].
    """

    iterations: int = 10
    uniform_share: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.uniform_share <= 1:
            raise ConfigError(f"uniform_share is {self.uniform_share}, expected it in [0, 1]")

    def begin(self, problem: Problem) -> Categorical:
        """Uniform, leaning to the warm start where there is one.

        Raises:
            PlanError: unless an action is one or several choices.
        """
        spaces, start = problem.model.spaces, problem.start
        if not spaces.action_groups:
            raise PlanError(
                f"CategoricalCEM searches Discrete and MultiDiscrete actions, but the action space "
                f"is {spaces.action}; use CEM for a Box, RandomShooting for MultiBinary"
            )
        uniform = _uniform(spaces.action_groups, start).expand_as(start)
        known = (start != 0).any(-1, keepdim=True)
        return Categorical(
            torch.where(known, uniform.lerp(start, WARM_SHARE), uniform), spaces.action_groups
        )

    def propose(self, problem: Problem, belief: Categorical, iteration: int) -> Tensor:
        """[B, N, H, A] one-hot plans drawn from the belief by the Gumbel trick."""
        size, horizon, width = belief.probs.shape
        shape = (size, self.samples, horizon, width)
        device = belief.probs.device
        waiting = torch.empty(shape, device=device).exponential_(generator=problem.generator)
        candidates = _choose(belief.probs.unsqueeze(1) / waiting, belief.groups)
        candidates[:, 0] = self.centre(problem, belief)
        return candidates

    def refit(
        self, problem: Problem, belief: Categorical, elites: Tensor, scores: Tensor
    ) -> Categorical:
        """Frequencies of the elites [B, K, H, A], with momentum and the uniform share."""
        probs = elites.mean(1).lerp(belief.probs, self.momentum)
        uniform = _uniform(belief.groups, probs)
        return Categorical(probs.lerp(uniform.expand_as(probs), self.uniform_share), belief.groups)

    def spread(self, belief: Categorical) -> Tensor:
        """[B] mean probability of not taking the most likely choice."""
        likely = [group.amax(-1) for group in belief.probs.split(list(belief.groups), -1)]
        return 1 - torch.stack(likely, -1).mean((1, 2))

    def centre(self, problem: Problem, belief: Categorical) -> Tensor:
        """[B, H, A] the most likely choices, one-hot."""
        return _choose(belief.probs, belief.groups)


def _uniform(groups: tuple[int, ...], like: Tensor) -> Tensor:
    """[A] equal probabilities in every group."""
    widths = torch.tensor(groups, device=like.device)
    return (1 / widths.to(like.dtype)).repeat_interleave(widths)


def _choose(weights: Tensor, groups: tuple[int, ...]) -> Tensor:
    """One-hot of the largest weight of every group, [..., A]."""
    parts = weights.split(list(groups), -1)
    hot = [one_hot(part.argmax(-1), part.shape[-1]) for part in parts]
    return torch.cat(hot, -1).to(weights.dtype)


PLANNERS.register("categorical_cem", CategoricalCEM)
