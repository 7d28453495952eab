"""The loop that every sampling planner shares: propose candidates, score them, learn from the best."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor

from wm_toolkit.errors import ConfigError
from wm_toolkit.models.base import WorldModel
from wm_toolkit.planning.base import Plan
from wm_toolkit.planning.deadline import Deadline
from wm_toolkit.planning.objective import Objective
from wm_toolkit.planning.problem import Best, History, Problem, select_elites
from wm_toolkit.planning.rollout import MEMORY_BYTES
from wm_toolkit.planning.settings import at_least, one_of

BeliefT = TypeVar("BeliefT")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingPlanner(ABC, Generic[BeliefT]):
    """Proposes candidates from a belief about good plans, scores them, refines the belief.

    Args:
        horizon: H, actions in a plan.
        samples: N, candidates per row and iteration.
        iterations: at most this many.
        time_limit: seconds for one plan; at least one iteration is made.
        memory_bytes: cap on one batch of rollouts; see `rollout.score`.
    """

    horizon: int
    samples: int = 300
    iterations: int = 30
    time_limit: float | None = None
    memory_bytes: int = MEMORY_BYTES

    def __post_init__(self) -> None:
        for name in ("horizon", "samples", "iterations", "memory_bytes"):
            at_least(self, name, 1)

    # -- to be written ---------------------------------------------------------------------------
    @abstractmethod
    def begin(self, problem: Problem) -> BeliefT:
        """The belief before anything was scored.

        Raises:
            PlanError: if the action space does not suit this planner.
        """

    @abstractmethod
    def propose(self, problem: Problem, belief: BeliefT, iteration: int) -> Tensor:
        """[B, N, H, A] candidates within the bounds."""

    @abstractmethod
    def refit(self, problem: Problem, belief: BeliefT, elites: Tensor, scores: Tensor) -> BeliefT:
        """The belief after an iteration: elites [B, K, H, A], best first, with their scores [B, K]."""

    @abstractmethod
    def spread(self, belief: BeliefT) -> Tensor:
        """[B] how undecided the belief still is."""

    # -- given -------------------------------------------------------------------------------------
    @property
    def elite_count(self) -> int:
        """K: how many of the best candidates `refit` sees."""
        return 1

    def settled(self, spread: Tensor) -> bool:
        """Whether further iterations would change nothing of interest."""
        return False

    def conclude(self, problem: Problem, belief: BeliefT, best: Best) -> Best:
        """What is returned, given the last belief and the best candidate seen."""
        return best

    # -- final -------------------------------------------------------------------------------------
    @torch.no_grad()
    def plan(
        self,
        model: WorldModel,
        state: Any,
        objective: Objective,
        *,
        warm_start: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Plan:
        """Search for every row at once; see `Planner.plan`."""
        deadline, history = Deadline(self.time_limit, model.device), History()
        problem = Problem.of(
            model,
            state,
            objective,
            horizon=self.horizon,
            warm_start=warm_start,
            generator=generator,
        )
        belief = self.begin(problem)
        best: Best | None = None
        for iteration in range(self.iterations):
            candidates = self.propose(problem, belief, iteration)
            scores = problem.score(candidates, self.memory_bytes)
            values, elites = select_elites(candidates, scores, self.elite_count)
            found = Best(values[:, 0], elites[:, 0])
            best = found if best is None else best.improve(found.score, found.actions)
            belief = self.refit(problem, belief, elites, values)
            spread = self.spread(belief)
            history.add(best, scores, spread)
            if deadline.reached() or self.settled(spread):
                break
        assert best is not None
        best = self.conclude(problem, belief, best.checked(model, objective))
        return Plan(best.actions, best.score, record=history.record())


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptivePlanner(SamplingPlanner[BeliefT]):
    """A sampling planner whose belief narrows around one plan, its centre.

    Args:
        elites: K, how many of the best candidates the belief is refitted to.
        momentum: weight of the old belief in the new one, in [0, 1).
        execute: return the centre ("mean"), or the best plan ever scored ("best"; the last centre
            is scored too).
        tolerance: stop when the spread of every row has fallen below; None never does.
    """

    elites: int = 30
    momentum: float = 0.0
    execute: Literal["mean", "best"] = "mean"
    tolerance: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, "elites", 1)
        if self.elites > self.samples:
            raise ConfigError(f"elites is {self.elites}, expected at most samples = {self.samples}")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum is {self.momentum}, expected at least 0 and below 1")
        one_of(self, "execute", ("mean", "best"))

    @abstractmethod
    def centre(self, problem: Problem, belief: BeliefT) -> Tensor:
        """[B, H, A] the plan the belief has narrowed around."""

    @property
    def elite_count(self) -> int:
        """K."""
        return self.elites

    def settled(self, spread: Tensor) -> bool:
        """Whether every row is decided to within the tolerance."""
        return self.tolerance is not None and bool((spread < self.tolerance).all())

    def conclude(self, problem: Problem, belief: BeliefT, best: Best) -> Best:
        """The centre (the best candidate where its score is not finite), or the better of the two."""
        centre = self.centre(problem, belief)
        value = problem.score(centre.unsqueeze(1), self.memory_bytes)[:, 0]
        if self.execute == "best":
            return best.improve(value, centre)
        return Best(value, centre).where(value.isfinite(), best)
