"""Actors: turn a model state into an action, by planning or by a policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from wm_toolkit.errors import ConfigError
from wm_toolkit.models.base import WorldModel
from wm_toolkit.planning.base import Plan, Planner
from wm_toolkit.planning.noise import random_actions
from wm_toolkit.planning.objective import GOAL, Objective
from wm_toolkit.spaces import Spaces
from wm_toolkit.structs import Struct


@dataclasses.dataclass(frozen=True)
class Decision(Struct):
    """What an agent does now.

    Attributes:
        action: [B, A] as the model sees it; `Spaces.decode_action` makes it the environment's.
        plan: the plan it was taken from, if the actor plans and made a new one for every row.
        policy: [B, n] distribution over choices, if there is one.
        value: [B] estimated value, if there is one.
        ends_plan: [B] bool, whether the next observation meets a new plan; None for an actor without
            plans, which decides anew every time.
    """

    action: Tensor
    plan: Plan | None = None
    policy: Tensor | None = None
    value: Tensor | None = None
    ends_plan: Tensor | None = None


class Actor(Protocol):
    """Chooses actions; its memory between two steps is explicit."""

    def initial(self, batch_size: int) -> Any:
        """The actor's memory before the first step (a Struct, or None)."""
        ...

    def act(
        self,
        state: Any,
        obs: Mapping[str, Tensor],
        memory: Any,
        *,
        is_first: Tensor,
        explore: bool = False,
        generator: torch.Generator | None = None,
    ) -> tuple[Decision, Any]:
        """Choose an action for every row of model state [B], given what was seen [B, ...]."""
        ...


@dataclasses.dataclass(frozen=True)
class PlanMemory(Struct):
    """The plan being executed.

    Attributes:
        actions: [B, H, A] the rest of the plan, next action first, zeros behind its end.
        left: [B] int64, how many of its actions may still be executed before replanning.
        goal: the goal observations [B, ...] that `objective` is bound to.
        objective: the objective, bound to them.
    """

    actions: Tensor
    left: Tensor
    goal: dict[str, Tensor]
    objective: Objective

    def __getitem__(self, index: Any) -> PlanMemory:
        goal = {key: value[index] for key, value in self.goal.items()}
        objective = self.objective.select(index)
        return PlanMemory(self.actions[index], self.left[index], goal, objective)


class PlanningActor:
    """Receding-horizon control: plan, execute `replan_every` actions, plan again.

    A row whose episode begins or whose goal changes is planned for at once; the other rows go on
    with the plan they have.

    Args:
        model: the model to search.
        planner: how to search it.
        objective: what to look for.
        replan_every: actions executed of one plan.
        warm_start: begin the next search from the rest of the last plan.
    """

    def __init__(
        self,
        model: WorldModel,
        planner: Planner,
        objective: Objective,
        *,
        replan_every: int = 1,
        warm_start: bool = True,
    ) -> None:
        if replan_every < 1:
            raise ConfigError(f"replan_every is {replan_every}, expected at least 1")
        self.model, self.planner, self.objective = model, planner, objective
        self.replan_every, self.warm_start = replan_every, warm_start

    def initial(self, batch_size: int) -> PlanMemory | None:
        """No plan yet; the first `act` makes one for every row."""
        return None

    @torch.no_grad()
    def act(
        self,
        state: Any,
        obs: Mapping[str, Tensor],
        memory: PlanMemory | None,
        *,
        is_first: Tensor,
        explore: bool = False,
        generator: torch.Generator | None = None,
    ) -> tuple[Decision, PlanMemory]:
        """The next action of the running plan, or the first of a new one.

        Args:
            state: [B] model state.
            obs: [B, ...] observations, with the goal's under "goal/...".
            memory: from the previous step, None on the first.
            is_first: [B] rows whose episode begins now.
            explore: unused; planning noise comes from the generator.
            generator: source of randomness.
        """
        objective, goal, changed = self._bind(obs, memory, generator)
        if memory is None:
            due = torch.ones(len(state), dtype=torch.bool)
        else:
            due = (is_first | changed | (memory.left <= 0)).cpu()
            memory = memory.replace(actions=memory.actions * ~is_first.view(-1, 1, 1))
        plan = None
        if bool(due.any()):
            plan, memory = self._replan(
                state, objective, goal, memory, due=due, generator=generator
            )
        assert memory is not None
        action = memory.actions[:, 0]
        rest = torch.cat([memory.actions[:, 1:], torch.zeros_like(memory.actions[:, :1])], 1)
        memory = PlanMemory(rest, memory.left - 1, goal, objective)
        whole = plan if bool(due.all()) else None
        return Decision(action, whole, ends_plan=memory.left <= 0), memory

    def _bind(
        self,
        obs: Mapping[str, Tensor],
        memory: PlanMemory | None,
        generator: torch.Generator | None,
    ) -> tuple[Objective, dict[str, Tensor], Tensor | bool]:
        """The objective for these goals, the goals, and the rows [B] whose goal is a new one.

        Goals that stay the same are not encoded again.
        """
        goal = {key: value for key, value in obs.items() if key.startswith(GOAL)}
        changed: Tensor | bool = False
        if goal and memory is not None:
            changed = _differs(goal, memory.goal)
            rows = changed.nonzero().squeeze(-1)
            if not len(rows):
                return memory.objective, memory.goal, changed
            if len(rows) < len(changed):
                new = {key: value[rows] for key, value in obs.items()}
                part = self.objective.bind(self.model, new, generator=generator)
                mixed = memory.objective.put(rows, part)
                if mixed is not None:
                    return mixed, goal, changed
        bound = self.objective.bind(self.model, obs, generator=generator)
        return bound, goal, changed

    def _replan(
        self,
        state: Any,
        objective: Objective,
        goal: dict[str, Tensor],
        memory: PlanMemory | None,
        *,
        due: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Plan, PlanMemory]:
        rows = due.nonzero().squeeze(-1).to(self.model.device)
        warm = memory.actions[rows] if memory is not None and self.warm_start else None
        everything = len(rows) == len(state)
        plan = self.planner.plan(
            self.model,
            state if everything else state[rows],
            objective if everything else objective.select(rows),
            warm_start=warm,
            generator=generator,
        )
        length = min(self.replan_every, plan.actions.shape[1])
        if everything or memory is None:
            left = torch.full((len(state),), length, device=plan.actions.device)
            return plan, PlanMemory(plan.actions, left, goal, objective)
        actions = memory.actions.index_copy(0, rows, plan.actions)
        left = memory.left.index_fill(0, rows, length)
        return plan, PlanMemory(actions, left, goal, objective)


def _differs(goal: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> Tensor:
    """[B] rows in which any goal observation [B, ...] is not the known one."""
    if goal.keys() != known.keys():
        first = next(iter(goal.values()))
        return torch.ones(len(first), dtype=torch.bool, device=first.device)
    rows = [(value != known[key]).reshape(len(value), -1).any(1) for key, value in goal.items()]
    return torch.stack(rows).any(0)


class PolicyActor:
    """Reads the action off a policy head.

    Args:
        model: a model with the head.
        policy: name of the head; its Output is over encoded actions [..., A].
        settled: what is done when not exploring: the policy's "mode" (Dreamer V1 and V2), or a "sample",
            as when exploring (Dreamer V3's code).
    """

    def __init__(
        self,
        model: WorldModel,
        policy: str = "policy",
        *,
        settled: Literal["mode", "sample"] = "mode",
    ) -> None:
        self.model, self.policy, self.settled = model, policy, settled

    def initial(self, batch_size: int) -> None:
        """A policy has no memory of its own."""
        return

    @torch.no_grad()
    def act(
        self,
        state: Any,
        obs: Mapping[str, Tensor],
        memory: None,
        *,
        is_first: Tensor,
        explore: bool = False,
        generator: torch.Generator | None = None,
    ) -> tuple[Decision, None]:
        """A draw from the policy when exploring, what is settled otherwise; [B, A]."""
        output = self.model.predict(self.policy, state)
        drawn = explore or self.settled == "sample"
        return Decision(output.sample(generator) if drawn else output.mode), None


class NoisyActor:
    """Another actor, whose actions are disturbed while it explores.

    Args:
        actor: chooses.
        spaces: of its actions.
        noise: deviation of Gaussian noise on numbers, in encoded units; clipped to the bounds (PlaNet and
            Dreamer V1: 0.3).
        random: chance that a choice is replaced by a uniform one; or what says it anew at every step
            (Dreamer V1).

    Raises:
        ConfigError: for a number out of range.
    """

    def __init__(
        self,
        actor: Actor,
        spaces: Spaces,
        *,
        noise: float = 0.3,
        random: float | Callable[[], float] = 0.1,
    ) -> None:
        self.random = random if callable(random) else lambda: random
        if noise < 0 or not 0 <= self.random() <= 1:
            raise ConfigError(
                f"noise is {noise} and random {self.random()}; expected >= 0, and in [0, 1]"
            )
        self.actor, self.spaces, self.noise = actor, spaces, noise

    def initial(self, batch_size: int) -> Any:
        """The other actor's memory."""
        return self.actor.initial(batch_size)

    @torch.no_grad()
    def act(
        self,
        state: Any,
        obs: Mapping[str, Tensor],
        memory: Any,
        *,
        is_first: Tensor,
        explore: bool = False,
        generator: torch.Generator | None = None,
    ) -> tuple[Decision, Any]:
        """The other actor's action, disturbed when exploring; [B, A]."""
        decision, memory = self.actor.act(
            state, obs, memory, is_first=is_first, explore=explore, generator=generator
        )
        if not explore:
            return decision, memory
        return decision.replace(action=self._disturbed(decision.action, generator)), memory

    def _disturbed(self, action: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.spaces.discrete:
            other = random_actions(
                self.spaces, (len(action),), generator=generator, device=action.device
            )
            chance = torch.empty_like(action[:, :1]).uniform_(generator=generator)
            return torch.where(chance < self.random(), other, action)
        noise = self.noise * torch.empty_like(action).normal_(generator=generator)
        low, high = self.spaces.action_low, self.spaces.action_high
        return (action + noise).clamp(low.to(action.device), high.to(action.device))


class RandomActor:
    """Uniform actions: the baseline beside every number.

    Args:
        model: only its spaces and device are used.
    """

    def __init__(self, model: WorldModel) -> None:
        self.model = model

    def initial(self, batch_size: int) -> None:
        """Nothing to remember."""
        return

    def act(
        self,
        state: Any,
        obs: Mapping[str, Tensor],
        memory: None,
        *,
        is_first: Tensor,
        explore: bool = False,
        generator: torch.Generator | None = None,
    ) -> tuple[Decision, None]:
        """[B, A] uniform between the bounds (unbounded: standard normal), or a uniform choice."""
        action = random_actions(
            self.model.spaces, (len(is_first),), generator=generator, device=self.model.device
        )
        return Decision(action), None
