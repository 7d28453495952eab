"""The loop that every sampling planner shares: propose candidates, score them, learn from the best."""

from __future__ import annotations

import contextlib
import dataclasses
from abc import ABC, abstractmethod
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor

from wm_toolkit.config import check_ranges, one_of
from wm_toolkit.errors import ConfigError
from wm_toolkit.models.base import WorldModel
from wm_toolkit.nn.packed import PackedWeights, worth_packing
from wm_toolkit.planning.base import Plan
from wm_toolkit.planning.deadline import Deadline
from wm_toolkit.planning.objective import Objective
from wm_toolkit.planning.problem import Best, History, Problem, select_elites
from wm_toolkit.planning.rollout import MEMORY_BYTES
from wm_toolkit.structs import Struct, cat

BeliefT = TypeVar("BeliefT")

Precision = Literal["float32", "bf16"]


@dataclasses.dataclass(frozen=True)
class Search(Struct, Generic[BeliefT]):
    """Where the search stands for some rows.

    Attributes:
        rows: [b] which of the B environments.
        belief: what is believed about their good plans.
        best: their best plans so far; None before the first iteration.
    """

    rows: Tensor
    belief: BeliefT
    best: Best | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingPlanner(ABC, Generic[BeliefT]):
    """Proposes candidates from a belief about good plans, scores them, refines the belief.

    Args:
        horizon: H, actions in a plan.
        samples: N, candidates per row and iteration.
        iterations: at most this many.
        time_limit: seconds for one plan; at least one iteration is made.
        memory_bytes: cap on one batch of rollouts; see `rollout.score`.
        precision: "bf16" dreams with bfloat16 matrix products (autocast): scores agree to about three
            digits, and a processor with bfloat16 units takes little more than half the time.
        compile: dream through `torch.compile`. The first plan takes minutes, later ones less time than
            without; a CPU needs a C++ compiler for it.
    """

    horizon: int
    samples: int = 300
    iterations: int = 30
    time_limit: float | None = None
    memory_bytes: int = MEMORY_BYTES
    precision: Precision = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        counts = ("horizon", "samples", "iterations", "memory_bytes")
        check_ranges(self, {"[1, inf)": counts})
        one_of(self, "precision", ("float32", "bf16"))

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

    def settled(self, spread: Tensor) -> Tensor | None:
        """[B] rows in which further iterations would change nothing of interest; None: never any."""
        return None

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
        # One block around the whole search: parameters are cast or packed once, not every iteration.
        with self._products(model):
            found = self._search(problem, deadline, history)
            assert found.best is not None
            best = self.conclude(problem, found.belief, found.best.checked(model, objective))
        return Plan(best.actions, best.score, record=history.record())

    def _products(self, model: WorldModel) -> contextlib.AbstractContextManager[Any]:
        """Matrix products in bfloat16 inside the block, or in float32 as fast as they can be."""
        if self.precision == "bf16":
            return torch.autocast(model.device.type, torch.bfloat16)
        if model.device.type == "cpu" and not self.compile and worth_packing(model):
            return PackedWeights()
        return contextlib.nullcontext()

    def _search(self, problem: Problem, deadline: Deadline, history: History) -> Search[BeliefT]:
        """Iterate; a row that has settled is left as it is and costs nothing more."""
        going = Search(
            torch.arange(len(problem.start), device=problem.start.device), self.begin(problem)
        )
        part, finished = problem, []
        for iteration in range(self.iterations):
            going, scores = self._iterate(part, going, iteration)
            assert going.best is not None
            spread = self.spread(going.belief)
            history.add(going.best, scores, spread, going.rows if finished else None)
            settled = self.settled(spread)
            if deadline.reached() or (settled is not None and bool(settled.all())):
                break
            if settled is not None and bool(settled.any()):
                finished.append(going[settled])
                going = going[~settled]
                part = problem.select(going.rows)
        together = cat([*finished, going])
        return together[together.rows.argsort()] if finished else going

    def _iterate(
        self, problem: Problem, search: Search[BeliefT], iteration: int
    ) -> tuple[Search[BeliefT], Tensor]:
        """One iteration for the rows of `problem`, and the scores [b, N] of its candidates."""
        candidates = self.propose(problem, search.belief, iteration)
        scores = problem.score(candidates, self.memory_bytes, compiled=self.compile)
        values, elites = select_elites(candidates, scores, self.elite_count)
        best = Best(values[:, 0], elites[:, 0])
        if search.best is not None:
            best = search.best.improve(best.score, best.actions)
        belief = self.refit(problem, search.belief, elites, values)
        return Search(search.rows, belief, best), scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptivePlanner(SamplingPlanner[BeliefT]):
    """A sampling planner whose belief narrows around one plan, its centre.

    Args:
        elites: K, how many of the best candidates the belief is refitted to.
        momentum: weight of the old belief in the new one, in [0, 1).
        execute: return the centre ("mean"), or the best plan ever scored ("best"; the last centre
            is scored too).
        tolerance: a row whose spread has fallen below is searched no further; None never stops early.
    """

    elites: int = 30
    momentum: float = 0.0
    execute: Literal["mean", "best"] = "mean"
    tolerance: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, elites="[1, inf)", momentum="[0, 1)")
        if self.elites > self.samples:
            raise ConfigError(f"elites is {self.elites}, expected at most samples = {self.samples}")
        one_of(self, "execute", ("mean", "best"))

    @abstractmethod
    def centre(self, problem: Problem, belief: BeliefT) -> Tensor:
        """[B, H, A] the plan the belief has narrowed around."""

    @property
    def elite_count(self) -> int:
        """K."""
        return self.elites

    def settled(self, spread: Tensor) -> Tensor | None:
        """[B] rows that are decided to within the tolerance."""
        return None if self.tolerance is None else spread < self.tolerance

    def conclude(self, problem: Problem, belief: BeliefT, best: Best) -> Best:
        """The centre (the best candidate where its score is not finite), or the better of the two."""
        centre = self.centre(problem, belief)
        value = problem.score(centre.unsqueeze(1), self.memory_bytes)[:, 0]
        if self.execute == "best":
            return best.improve(value, centre)
        return Best(value, centre).where(value.isfinite(), best)
