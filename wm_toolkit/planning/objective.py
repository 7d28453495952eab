"""What is good: objectives that score dreamt trajectories. Scores are maximised everywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from wm_toolkit.errors import MissingGoalError, PlanError
from wm_toolkit.models.base import WorldModel

GOAL = "goal/"
"""Prefix of goal observations: `obs["goal/image"]` is what `obs["image"]` should look like."""


class Objective:
    """Says what is good, step by step; the default is worth nothing anywhere.

    `reward`, `discount` and `value` accept any leading axes: tree search asks for single steps [B],
    trajectory planners for whole rollouts [B, N, H]. A subclass overrides what it needs.
    """

    def bind(
        self,
        model: WorldModel,
        obs: Mapping[str, Tensor],
        *,
        generator: torch.Generator | None = None,
    ) -> Objective:
        """Prepare for the present observations [B, ...], e.g. encode the goals once."""
        return self

    def select(self, rows: Tensor | slice) -> Objective:
        """The bound objective of some rows [b] (indices, a mask or a slice of B)."""
        return self

    def put(self, rows: Tensor, part: Objective) -> Objective | None:
        """This bound objective with that of some rows exchanged, so that the others stay as they are.

        Args:
            rows: [b] indices into B.
            part: the same objective, bound to the observations of these rows.

        Returns:
            the bound objective of all rows; None if it has to be bound to all observations anew.
        """
        return self if part is self else None

    def reward(self, model: WorldModel, action: Tensor, state: Any) -> Tensor:
        """[...] reward of arriving in `state` [...] by `action` [..., A]."""
        return action.new_zeros(action.shape[:-1])

    def discount(self, model: WorldModel, state: Any) -> Tensor | float:
        """[...] gamma times the probability that the episode goes on from `state` [...]."""
        return 1.0

    def value(self, model: WorldModel, state: Any) -> Tensor | float:
        """[...] what is left to gain after a plan that ends in `state` [...]."""
        return 0.0

    def score(self, model: WorldModel, actions: Tensor, states: Any) -> Tensor:
        """Score whole candidates: sum of discounted rewards plus the discounted final value.

        Args:
            actions: [B, N, H, A].
            states: [B, N, H] as `WorldModel.rollout` returns them.

        Returns:
            [B, N], larger is better.
        """
        rewards = self.reward(model, actions, states)
        discount = self.discount(model, states)
        if not isinstance(discount, Tensor):
            discount = torch.full_like(rewards, discount)
        alive = discount.expand_as(rewards).to(rewards.dtype).cumprod(-1)
        before = torch.cat([torch.ones_like(alive[..., :1]), alive[..., :-1]], -1)
        return (rewards * before).sum(-1) + alive[..., -1] * self.value(model, states[:, :, -1])


@dataclasses.dataclass(frozen=True)
class Reward(Objective):
    """The model's own reward, with its value head at the end of the plan if it has one.

    Args:
        gamma: discount per step of the model (after frame skip); None takes the one that the model's
            "continue" head, and so its value head, was taught (Dreamer V3), else 1.
        bootstrap: "value" demands the value head, "none" ignores it, "auto" uses it if there.
    """

    gamma: float | None = 0.99
    bootstrap: Literal["auto", "value", "none"] = "auto"

    def reward(self, model: WorldModel, action: Tensor, state: Any) -> Tensor:
        """[...] mean of the reward head."""
        return model.predict("reward", state).mean

    def discount(self, model: WorldModel, state: Any) -> Tensor | float:
        """[...] gamma times the probability of going on, or gamma where no head says it."""
        gamma = model.discount if self.gamma is None else self.gamma
        if "continue" not in model.heads:
            return gamma
        return gamma * model.continues(state)

    def value(self, model: WorldModel, state: Any) -> Tensor | float:
        """[...] mean of the value head."""
        if self.bootstrap == "none" or (self.bootstrap == "auto" and "value" not in model.heads):
            return 0.0
        return model.predict("value", state).mean


@dataclasses.dataclass(frozen=True)
class Survival(Objective):
    """Staying alive: 1 per step times the probability that the episode goes on."""

    gamma: float = 0.99

    def reward(self, model: WorldModel, action: Tensor, state: Any) -> Tensor:
        """[...] probability of going on."""
        return model.continues(state)

    def discount(self, model: WorldModel, state: Any) -> Tensor:
        """[...] gamma times the same probability."""
        return self.gamma * model.continues(state)


@dataclasses.dataclass(frozen=True)
class ActionCost(Objective):
    """Minus the mean squared action of every step; a small weight keeps plans calm."""

    def reward(self, model: WorldModel, action: Tensor, state: Any) -> Tensor:
        """[...] minus the mean square of action [..., A]."""
        return -action.square().mean(-1)


GoalMode = Literal["last", "sum", "all", "closest"]


@dataclasses.dataclass(frozen=True)
class Goal(Objective):
    """Minus the distance to a goal in the model's latent space.

    Args:
        features: [B, G] (or [G]) the goal itself; by default `bind` encodes `obs["goal/..."]`.
        mode: which steps of a plan count: "last", "sum" (every step alike), "all" (weights grow as
            base^t, normalised; Zhou et al. 2025, DINO-WM), or "closest" (the best step).
        metric: "mse" (mean over G), "l2" (Euclidean).
        base: growth of the weights in mode "all".
        haste: in mode "closest", the share of the mean distance that is added, so that of two plans
            that come equally close the quicker one wins.

    A plan that is scored by its last step alone may always put off arriving, when it is made anew
    before it ends; "sum" and "closest" leave nothing to gain by waiting. "closest" allows detours,
    which "sum" charges for.
    """

    features: Tensor | None = None
    mode: GoalMode = "last"
    metric: Literal["mse", "l2"] = "mse"
    base: float = 2.0
    haste: float = 0.2

    @torch.no_grad()
    def bind(
        self,
        model: WorldModel,
        obs: Mapping[str, Tensor],
        *,
        generator: torch.Generator | None = None,
    ) -> Goal:
        """Encode the goal observations [B, ...] once.

        Raises:
            MissingGoalError: if no key begins with "goal/" and no features were given.
        """
        if self.features is not None:
            return self
        goal = {key.removeprefix(GOAL): value for key, value in obs.items() if key.startswith(GOAL)}
        if not goal:
            raise MissingGoalError(
                f"Goal needs an observation key that starts with {GOAL!r}; got {sorted(obs)}. "
                "Wrap the environment in GoalReaching, or give Goal(features=...)"
            )
        size = len(next(iter(goal.values())))
        no_action = torch.zeros(size, model.spaces.action_width, device=model.device)
        state = model.observe(model.initial(size), no_action, goal, generator=generator)
        return dataclasses.replace(self, features=model.goal_features(state))

    def select(self, rows: Tensor | slice) -> Goal:
        """The goals of some rows [b]."""
        if self.features is None or self.features.ndim == 1 or len(self.features) == 1:
            return self
        return dataclasses.replace(self, features=self.features[rows])

    def put(self, rows: Tensor, part: Objective) -> Goal | None:
        """The goals with those of some rows [b] exchanged."""
        if part is self:
            return self
        if not isinstance(part, Goal) or self.features is None or part.features is None:
            return None
        return dataclasses.replace(self, features=self.features.index_copy(0, rows, part.features))

    def distance(self, model: WorldModel, state: Any) -> Tensor:
        """[...] distance of `state` [...] to the goal of its row."""
        if self.features is None:
            raise MissingGoalError("Goal has no features yet; call bind(model, obs) first")
        now = model.goal_features(state)
        goal = self.features
        if goal.ndim == 2:
            if len(goal) not in (1, len(now)):
                raise MissingGoalError(f"{len(goal)} goals for {len(now)} rows")
            goal = goal.reshape(len(goal), *([1] * (now.ndim - 2)), goal.shape[-1])
        squared = (now - goal).square()
        return squared.mean(-1) if self.metric == "mse" else squared.sum(-1).add(1e-12).sqrt()

    def reward(self, model: WorldModel, action: Tensor, state: Any) -> Tensor:
        """[...] minus the distance, in mode "sum"; zero in the others."""
        if self.mode == "sum":
            return -self.distance(model, state)
        return super().reward(model, action, state)

    def value(self, model: WorldModel, state: Any) -> Tensor | float:
        """[...] minus the distance at the end of a plan; in mode "sum" the rewards hold it."""
        return 0.0 if self.mode == "sum" else -self.distance(model, state)

    def score(self, model: WorldModel, actions: Tensor, states: Any) -> Tensor:
        """[B, N] minus the distance over the steps that count."""
        if self.mode == "last":
            return -self.distance(model, states[:, :, -1])
        distance = self.distance(model, states)
        if self.mode == "sum":
            return -distance.sum(-1)
        if self.mode == "closest":
            return -distance.amin(-1) - self.haste * distance.mean(-1)
        steps = torch.arange(distance.shape[-1], device=distance.device)
        weight = self.base**steps
        return -(distance * (weight / weight.sum())).sum(-1)


@dataclasses.dataclass(frozen=True)
class Weighted(Objective):
    """A weighted sum of objectives.

    Step by step (tree search) all parts share the discount of the first; whole candidates are scored
    by each part with its own.

    Example:
        >>> objective = Weighted([(1.0, Goal()), (0.01, ActionCost())])
    """

    parts: Sequence[tuple[float, Objective]]

    def __post_init__(self) -> None:
        if not self.parts:
            raise PlanError("Weighted needs at least one (weight, objective) pair")

    def bind(
        self,
        model: WorldModel,
        obs: Mapping[str, Tensor],
        *,
        generator: torch.Generator | None = None,
    ) -> Weighted:
        """Bind every part to the observations [B, ...]."""
        parts = [(w, part.bind(model, obs, generator=generator)) for w, part in self.parts]
        return Weighted(parts)

    def select(self, rows: Tensor | slice) -> Weighted:
        """Every part for some rows [b]."""
        return Weighted([(weight, part.select(rows)) for weight, part in self.parts])

    def put(self, rows: Tensor, part: Objective) -> Weighted | None:
        """Every part with some rows [b] exchanged, if all parts can."""
        if not isinstance(part, Weighted):
            return None
        pairs = zip(self.parts, part.parts, strict=True)
        mixed = [(weight, mine.put(rows, theirs)) for (weight, mine), (_, theirs) in pairs]
        found = [(weight, objective) for weight, objective in mixed if objective is not None]
        return Weighted(found) if len(found) == len(mixed) else None

    def reward(self, model: WorldModel, action: Tensor, state: Any) -> Tensor:
        """[...] weighted sum."""
        return torch.stack([w * p.reward(model, action, state) for w, p in self.parts]).sum(0)

    def discount(self, model: WorldModel, state: Any) -> Tensor | float:
        """[...] of the first part."""
        return self.parts[0][1].discount(model, state)

    def value(self, model: WorldModel, state: Any) -> Tensor | float:
        """[...] weighted sum."""
        return sum(w * p.value(model, state) for w, p in self.parts)

    def score(self, model: WorldModel, actions: Tensor, states: Any) -> Tensor:
        """[B, N] weighted sum of the parts' scores."""
        return torch.stack([w * p.score(model, actions, states) for w, p in self.parts]).sum(0)
