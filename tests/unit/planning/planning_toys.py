"""Systems with a known optimum, as world models."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from wm_toolkit.batch import Batch, Losses
from wm_toolkit.heads.normal import Regression
from wm_toolkit.models.base import WorldModel
from wm_toolkit.planning.cem import CEM
from wm_toolkit.planning.objective import Objective
from wm_toolkit.planning.rollout import score
from wm_toolkit.spaces import Spaces
from wm_toolkit.structs import Struct


@dataclasses.dataclass(frozen=True)
class Position(Struct):
    x: Tensor


def box(width: int, bound: float = 1.0) -> gym.spaces.Box:
    return gym.spaces.Box(-bound, bound, (width,), np.float32)


AWAY = Position(torch.tensor([[1.0, -0.5]]))


class Linear(WorldModel[Position]):
    """x' = A x + B a, seen as it is; a parameter that is 1 stands for what training would change."""

    def __init__(self, a: Tensor, b: Tensor, action: gym.Space, **options) -> None:
        vector = gym.spaces.Box(-np.inf, np.inf, (len(a),), np.float32)
        super().__init__(Spaces({"vector": vector}, action, **options))
        self.register_buffer("a", a)
        self.register_buffer("b", b)
        self.gain = nn.Parameter(torch.ones(()))
        self.dreamt: list[int] = []
        self.observed = 0

    def initial(self, batch_size: int) -> Position:
        return Position(torch.zeros(batch_size, len(self.a)))

    def observe(self, state, action, obs, *, generator=None) -> Position:
        self.observed += len(action)
        return Position(obs["vector"].float())

    def imagine(self, state, action, *, generator=None) -> Position:
        return Position(state.x @ self.a.T + self.gain * action @ self.b.T)

    def rollout(self, state, actions, *, generator=None) -> Position:
        self.dreamt.append(actions.shape[0] * actions.shape[1])
        return super().rollout(state, actions, generator=generator)

    def features(self, state) -> Tensor:
        return state.x

    def loss(self, batch: Batch) -> Losses:
        return {}


class PointMass(Linear):
    """A point that every action moves by a tenth of itself, in two dimensions."""

    def __init__(self, bound: float = 1.0) -> None:
        super().__init__(torch.eye(2), 0.1 * torch.eye(2), box(2, bound), scaling="none")


class Identity(Linear):
    """The state is the last action: the score of a plan is any function of one action."""

    def __init__(self, width: int = 1, action: gym.Space | None = None) -> None:
        super().__init__(torch.zeros(width, width), torch.eye(width), action or box(width))


class Column(nn.Module):
    """A head that reads one feature."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, features: Tensor) -> Regression:
        mean = features[..., self.index]
        return Regression(mean, torch.ones_like(mean), 0)


@dataclasses.dataclass(frozen=True)
class Quadratic(Objective):
    """Minus state'Q state minus action'R action, summed: the linear-quadratic regulator."""

    q: float = 1.0
    r: float = 0.1

    def reward(self, model, action, state) -> Tensor:
        return -self.q * state.x.square().sum(-1) - self.r * action.square().sum(-1)


@dataclasses.dataclass(frozen=True)
class TwoPeaks(Objective):
    """A broad hill at -0.5 and a higher, narrower one at 0.6: gradients from 0 find the lower one."""

    def reward(self, model, action, state) -> Tensor:
        x = state.x[..., 0]
        return torch.exp(-((x + 0.5) / 0.4).square()) + 1.5 * torch.exp(
            -((x - 0.6) / 0.12).square()
        )

    def best(self) -> tuple[float, float]:
        """Where the global optimum lies, and how high it is."""
        grid = torch.linspace(-1, 1, 20_001).unsqueeze(-1)
        heights = self.reward(None, grid, Position(grid))
        return float(grid[heights.argmax()]), float(heights.max())


def oscillator() -> Linear:
    """A double integrator without action bounds."""
    a = torch.tensor([[1.0, 0.3], [-0.3, 1.0]])
    b = torch.tensor([[0.0], [0.5]])
    return Linear(a, b, box(1, np.inf))


def regulate(model: Linear, start: Tensor, horizon: int, objective: Quadratic) -> Tensor:
    """[H, A] the optimal actions of the linear-quadratic problem, by the normal equations."""
    powers = [torch.linalg.matrix_power(model.a, k) for k in range(horizon + 1)]
    free = torch.cat([power @ start for power in powers[1:]])
    width = model.b.shape[1]
    rows = [
        torch.cat(
            [
                powers[t - k] @ model.b if k <= t else torch.zeros_like(model.b)
                for k in range(horizon)
            ],
            1,
        )
        for t in range(horizon)
    ]
    forced = torch.cat(rows)
    hessian = objective.q * forced.T @ forced + objective.r * torch.eye(horizon * width)
    actions = torch.linalg.solve(hessian, -objective.q * forced.T @ free)
    return actions.view(horizon, width)


def published_loop(deviation: Callable[[Tensor], Tensor], *, mean_candidate: bool) -> Tensor:
    """Cross-entropy search as released code has it: one oscillator, no bounds, the best 10 of 50, six times.

    Args:
        deviation: what the next Gaussian deviates by, from the elites [10, 4, 1].
        mean_candidate: whether the mean takes the first candidate's place.

    Returns:
        The last mean, [4, 1]; draws are those of a generator seeded with 5.
    """
    rng = torch.Generator().manual_seed(5)
    mean, std = torch.zeros(4, 1), torch.ones(4, 1)
    for _ in range(6):
        candidates = torch.randn(50, 4, 1, generator=rng) * std + mean
        if mean_candidate:
            candidates[0] = mean
        gains = score(oscillator(), AWAY, candidates[None], Quadratic())[0]
        elites = candidates[torch.argsort(gains, descending=True)[:10]]
        mean, std = elites.mean(0), deviation(elites)
    return mean


def searched(**options) -> Tensor:
    """The same search, as the toolkit's CEM has it with options."""
    planner = CEM(horizon=4, samples=50, elites=10, iterations=6, **options)
    rng = torch.Generator().manual_seed(5)
    return planner.plan(oscillator(), AWAY, Quadratic(), generator=rng).actions[0]
