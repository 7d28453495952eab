"""Gradient ascent on the score through the model."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from wm_toolkit.config import check_ranges
from wm_toolkit.errors import ConfigError, PlanError, did_you_mean
from wm_toolkit.models.base import WorldModel
from wm_toolkit.planning.base import PLANNERS, Plan
from wm_toolkit.planning.deadline import Deadline
from wm_toolkit.planning.objective import Objective
from wm_toolkit.planning.problem import (
    Best,
    History,
    Problem,
    select_elites,
    worst_unless_finite,
)
from wm_toolkit.planning.rollout import MEMORY_BYTES, score_and_gradient

OptimizerFactory = Callable[[list[Tensor]], torch.optim.Optimizer]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientPlanner:
    """Follows the gradient of the score from several starts and returns the best plan met.

    Every step ends with a projection into the action bounds. The model's parameters get no gradient.

    Args:
        horizon: H, actions in a plan.
        samples: N, starts per row; the first is the warm start (zeros without one), the others are
            Gaussian around it.
        iterations: gradient steps.
        optimizer: a name in `torch.optim`, or a factory such as `partial(torch.optim.SGD, lr=1.0)`.
            One that couples its elements (LBFGS) couples the rows of a batch.
        learning_rate: for an optimizer given by name.
        init_std: deviation of the starts.
        noise_std: deviation of the noise added after every step (0.003 in DINO-WM).
        tolerance: stop when no action of any start moves further than this in a step.
        time_limit: seconds for one plan; at least one step is made.
        memory_bytes: cap on one batch of rollouts; see `rollout.score`.

    Example:
        >>> planner = GradientPlanner(horizon=5, optimizer=partial(torch.optim.Adam, lr=0.1))
    """

    horizon: int
    samples: int = 16
    iterations: int = 100
    optimizer: str | OptimizerFactory = "Adam"
    learning_rate: float = 0.1
    init_std: float = 0.5
    noise_std: float = 0.0
    tolerance: float | None = None
    time_limit: float | None = None
    memory_bytes: int = MEMORY_BYTES

    def __post_init__(self) -> None:
        counts = ("horizon", "samples", "iterations", "memory_bytes")
        scales = ("learning_rate", "init_std", "noise_std")
        check_ranges(self, {"[1, inf)": counts, "[0, inf)": scales})
        if isinstance(self.optimizer, str) and self.optimizer not in _optimizers():
            raise ConfigError(
                f"torch.optim has no optimizer {self.optimizer!r}."
                + did_you_mean(self.optimizer, _optimizers())
            )

    def plan(
        self,
        model: WorldModel,
        state: Any,
        objective: Objective,
        *,
        warm_start: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Plan:
        """Climb for every row and start at once; see `Planner.plan`."""
        if model.spaces.discrete:
            raise PlanError(
                f"GradientPlanner searches continuous actions, but the action space is "
                f"{model.spaces.action}; use CategoricalCEM or RandomShooting"
            )
        problem = Problem.of(
            model,
            state,
            objective,
            horizon=self.horizon,
            warm_start=warm_start,
            generator=generator,
        )
        with _frozen(model), torch.no_grad():
            ascent = Ascent(problem, self._starts(problem), self.memory_bytes)
            self._climb(problem, ascent)
            best = ascent.finish().checked(model, objective)
        return Plan(best.actions, best.score, record=ascent.history.record())

    def _climb(self, problem: Problem, ascent: Ascent) -> None:
        optimizer = self._optimizer(ascent.actions)
        deadline = Deadline(self.time_limit, ascent.actions.device)
        for _ in range(self.iterations):
            before = ascent.actions.clone() if self.tolerance is not None else None
            # A number would be fetched from the device in every step; no optimizer needs it as one.
            optimizer.step(cast(Callable[[], float], ascent.evaluate))
            if self.noise_std:
                noise = _normal(ascent.actions.shape, problem)
                ascent.actions.add_(noise, alpha=self.noise_std)
            ascent.actions.clamp_(problem.low, problem.high)
            if deadline.reached() or (before is not None and self._still(ascent.actions, before)):
                break

    def _still(self, actions: Tensor, before: Tensor) -> bool:
        assert self.tolerance is not None
        return bool((actions - before).abs().amax() < self.tolerance)

    def _starts(self, problem: Problem) -> Tensor:
        """[B, N, H, A] where the ascents begin."""
        size, horizon, width = problem.start.shape
        starts = _normal((size, self.samples, horizon, width), problem)
        starts.mul_(self.init_std).add_(problem.start.unsqueeze(1))
        starts[:, 0] = problem.start
        return starts.clamp_(problem.low, problem.high)

    def _optimizer(self, actions: Tensor) -> torch.optim.Optimizer:
        if isinstance(self.optimizer, str):
            return _optimizers()[self.optimizer]([actions], lr=self.learning_rate)
        return self.optimizer([actions])


class Ascent:
    """The plans that climb, and the best of them so far.

    Attributes:
        actions: [B, N, H, A] present plans, a parameter of the optimizer.
        best: the best plan met, None before the first evaluation.
        history: one entry per evaluation.
    """

    def __init__(self, problem: Problem, actions: Tensor, memory_bytes: int) -> None:
        self.problem, self.memory_bytes = problem, memory_bytes
        self.actions = actions.requires_grad_()
        self.best: Best | None = None
        self.history = History()

    def evaluate(self) -> Tensor:
        """Score the present plans and set their gradient; [] the loss that optimizers minimise."""
        problem = self.problem
        scores, gradient = score_and_gradient(
            problem.model,
            problem.state,
            self.actions,
            problem.objective,
            generator=problem.generator,
            memory_bytes=self.memory_bytes,
        )
        # A plan that made the model diverge stays where it is and cannot be the best.
        self.actions.grad = -gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        return -self._note(worst_unless_finite(scores)).nansum()

    def finish(self) -> Best:
        """The best plan met, the last ones included."""
        scores = self.problem.score(self.actions.detach(), self.memory_bytes)
        self._note(scores)
        assert self.best is not None
        return self.best

    def _note(self, scores: Tensor) -> Tensor:
        actions = self.actions.detach()
        values, plans = select_elites(actions, scores, 1)
        found = Best(values[:, 0], plans[:, 0])
        self.best = found if self.best is None else self.best.improve(found.score, found.actions)
        spread = actions.std(1, correction=0).mean((1, 2))
        self.history.add(self.best, scores, spread)
        return scores


def _normal(shape: tuple[int, ...], problem: Problem) -> Tensor:
    return torch.randn(shape, generator=problem.generator, device=problem.start.device)


def _optimizers() -> dict[str, Any]:
    return {
        name: kind
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
    }


@contextlib.contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Keep the parameters out of the graph, which then holds less and is cheaper to run backwards."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


PLANNERS.register("gradient", GradientPlanner)
