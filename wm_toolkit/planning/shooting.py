"""Random shooting: the baseline that every search has to beat."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from wm_toolkit.planning.base import PLANNERS
from wm_toolkit.planning.noise import random_actions
from wm_toolkit.planning.problem import Problem
from wm_toolkit.planning.sampling import SamplingPlanner


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomShooting(SamplingPlanner[Tensor]):
    """Returns the best of many plans drawn without a preference, for any action space.

    Bounded actions are uniform, unbounded ones standard normal, choices uniform; the warm start is
    one of the candidates. With several iterations new candidates are drawn in each; the spread in
    the record stays 0, because nothing is adapted.

    Example:
        >>> plan = RandomShooting(horizon=5).plan(model, state, goal, generator=generator)
    """

    samples: int = 1000
    iterations: int = 1

    def begin(self, problem: Problem) -> Tensor:
        """[B, H, A] the warm start; nothing else is believed."""
        return problem.start

    def propose(self, problem: Problem, belief: Tensor, iteration: int) -> Tensor:
        """[B, N, H, A] fresh random plans; where there is a warm start it takes the first place."""
        size, horizon, _ = belief.shape
        candidates = random_actions(
            problem.model.spaces,
            (size, self.samples, horizon),
            generator=problem.generator,
            device=belief.device,
        )
        known = (belief != 0).any(-1, keepdim=True)
        candidates[:, 0] = belief.where(known, candidates[:, 0])
        return candidates

    def refit(self, problem: Problem, belief: Tensor, elites: Tensor, scores: Tensor) -> Tensor:
        """The same belief [B, H, A]: nothing is learnt."""
        return belief

    def spread(self, belief: Tensor) -> Tensor:
        """[B] zeros."""
        return belief.new_zeros(len(belief))


PLANNERS.register("shooting", RandomShooting)
