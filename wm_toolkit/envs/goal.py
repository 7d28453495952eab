"""Goal reaching: any environment, a goal beside every observation, a finite budget, explicit success."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from wm_toolkit.envs.goals import Goals, GoalSampler
from wm_toolkit.envs.rows import over, put_rows, share, unshare
from wm_toolkit.errors import ConfigError, MissingGoalError
from wm_toolkit.spaces import flat_obs, flat_space

GOAL = "goal/"
Success = Callable[[Any, Mapping[str, Any]], Any]
"""(unwrapped env, info) to whether the goal is reached: a bool, or bool [N] for a vector."""


class _Tasks:
    """Which task comes next, and what single and vector wrapper say in the same words."""

    def __init__(
        self, goals: Goals | GoalSampler, budget: int, success: Success | None, base: gym.Space
    ) -> None:
        if not isinstance(budget, (int, np.integer)) or budget < 1:
            raise ConfigError(
                f"budget is {budget!r}; give a finite number of raw environment steps, so that an "
                "unreachable goal ends"
            )
        self.goals, self.budget, self.success = goals, int(budget), success
        self.base = flat_space(base)
        self.rng = np_random()[0]
        self.next = 0

    def seed(self, seed: Any) -> None:
        """Begin again with the first task and a fresh generator."""
        if seed is not None:
            self.rng = np_random(int(np.ravel(seed)[0]))[0]
            self.next = 0

    def draw(self, env: Any, count: int) -> Goals:
        """The next `count` tasks: the following ones of a list (in turn), or new ones of a sampler."""
        if not isinstance(self.goals, Goals):
            return self.goals(env, self.rng, count)
        index = (self.next + np.arange(count)) % len(self.goals)
        self.next = int(index[-1]) + 1
        return self.goals[index]

    def space(self, goals: Goals | None) -> gym.spaces.Dict:
        """Spaces of the observation and, under "goal/", of the keys that goals have."""
        keys = self.base if goals is None else goals.obs
        unknown = [key for key in keys if key not in self.base]
        if unknown:
            raise MissingGoalError(
                f"goals have the keys {unknown}, observations {sorted(self.base)}"
            )
        return gym.spaces.Dict({**self.base, **{GOAL + key: self.base[key] for key in keys}})

    def judge(self, env: Any, info: Mapping[str, Any], known: bool) -> Any:
        """Whether the goal is reached, by the given function or `info["success"]`."""
        if self.success is not None:
            return self.success(env, info)
        if not known or "success" not in info:
            reason = "the goal's state is unknown" if not known else "info has no 'success'"
            raise MissingGoalError(
                f"{reason}, so success must be given: success=(env, info) -> bool"
            )
        return info["success"]


def _options(goals: Goals | None, row: Any = slice(None)) -> dict[str, Any]:
    assert goals is not None
    parts = {"state": goals.start, "goal": goals.state}
    return {name: part[row] for name, part in parts.items() if part is not None}


class GoalReaching(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Puts a goal beside every observation: {"image": ..., "goal/image": ...}.

    `info` gains "success" (explicit, and no reason to terminate), "success_step" (raw steps until the
    first success, -1 before it, 0 if the start already solves it), "at_goal" (the same as "success", but
    of the last raw step alone, also behind an `ActionBlock`) and "goal_state" where it is known.

    Args:
        env: any environment; `SegmentGoals` and `EnvGoals` need a `Stateful` one.
        goals: a list of tasks (taken in turn) or a sampler: `SegmentGoals`, `EnvGoals`, `ImageGoals`, or
            any callable (env, rng, count) -> Goals.
        budget: raw steps after which an episode is truncated; must be finite.
        success: (unwrapped env, info) -> bool; by default the environment's own `info["success"]`.
        terminate_on_success: also end the episode at the first success.

    Example:
        >>> env = gym.make("wm_toolkit/TwoRooms-v0")
        >>> env = GoalReaching(env, EnvGoals({"goal_room": "same"}), budget=50)
        >>> sorted(env.reset(seed=0)[0])
        ['goal/image', 'image']
    """

    def __init__(
        self,
        env: gym.Env,
        goals: Goals | GoalSampler,
        *,
        budget: int,
        success: Success | None = None,
        terminate_on_success: bool = False,
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(
            self,
            goals=share(goals),
            budget=budget,
            success=share(success),
            terminate_on_success=terminate_on_success,
        )
        super().__init__(env)
        goals, success = unshare(goals), unshare(success)
        self._tasks = _Tasks(goals, budget, success, env.observation_space)
        self.terminate_on_success = terminate_on_success
        self.observation_space = self._tasks.space(_goal_keys(goals))
        self._goal: Goals | None = None
        self._steps, self._success_step = 0, -1

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Draw the next task and start it; options["goals"] gives one (Goals of one row) instead."""
        options = dict(options or {})
        given = options.pop("goals", None)
        self._tasks.seed(seed)
        if seed is not None:
            self.env.reset(seed=seed)
        self._goal = given or self._tasks.draw(self.env.unwrapped, 1)
        obs, info = self.env.reset(seed=seed, options={**_options(self._goal, 0), **options})
        self._steps, self._success_step = 0, -1
        return self._with_goal(obs), self._judge(info)

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One raw step."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._steps += 1
        info = self._judge(info)
        terminated = terminated or (self.terminate_on_success and info["success"])
        truncated = truncated or self._steps >= self._tasks.budget
        return self._with_goal(obs), float(reward), bool(terminated), bool(truncated), info

    def _with_goal(self, obs: Any) -> dict[str, Any]:
        assert self._goal is not None
        return {**flat_obs(obs), **{GOAL + key: v[0].copy() for key, v in self._goal.obs.items()}}

    def _judge(self, info: dict[str, Any]) -> dict[str, Any]:
        assert self._goal is not None
        info = dict(info)
        if self._goal.state is not None:
            info["goal_state"] = self._goal.state[0].copy()
        known = self._goal.state is not None
        info["success"] = bool(self._tasks.judge(self.env.unwrapped, info, known))
        if info["success"] and self._success_step < 0:
            self._success_step = self._steps
        return info | {"success_step": self._success_step, "at_goal": info["success"]}


class GoalReachingVector(gym.vector.VectorWrapper):
    """`GoalReaching` for an environment that is a batch of rows, such as `TwoRoomsVector`.

    All tasks are drawn and replayed at once on `reset`; a row that ends starts its own task again on the
    next step. (Any other environment: wrap each copy in `GoalReaching`, then in `SyncVectorEnv`.)

    Args:
        env: a vector environment whose `reset` takes "state", "goal" [N, S] and "reset_mask".
        goals, budget, success, terminate_on_success: as in `GoalReaching`; success gives bool [N].

    Example:
        >>> envs = gym.make_vec("wm_toolkit/TwoRooms-v0", num_envs=100)
        >>> envs = GoalReachingVector(envs, SegmentGoals(held_out, offset=25), budget=50)
        >>> obs, info = envs.reset(seed=0)
        >>> info["success_step"].shape
        (100,)
    """

    def __init__(
        self,
        env: gym.vector.VectorEnv,
        goals: Goals | GoalSampler,
        *,
        budget: int,
        success: Success | None = None,
        terminate_on_success: bool = False,
    ) -> None:
        super().__init__(env)
        self._tasks = _Tasks(goals, budget, success, env.single_observation_space)
        self.terminate_on_success = terminate_on_success
        self.single_observation_space = self._tasks.space(_goal_keys(goals))
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self._goal: Goals | None = None
        self._steps = np.zeros(env.num_envs, np.int64)
        self._success_step = np.full(env.num_envs, -1)
        self._ended = np.zeros(env.num_envs, bool)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Draw a task for every row and start it.

        Args:
            seed: as the environment takes it; it also begins again with the first task.
            options: "goals" gives the tasks (Goals of N rows) instead; with "reset_mask" [N] those rows
                start their tasks again; the rest goes to the environment.
        """
        options = dict(options or {})
        mask, given = options.get("reset_mask"), options.pop("goals", None)
        if mask is not None and self._goal is not None:
            return self._restart(np.asarray(mask), options)
        options.pop("reset_mask", None)
        self._tasks.seed(seed)
        if seed is not None:
            self.env.reset(seed=seed)
        self._goal = given or self._tasks.draw(self.env.unwrapped, self.num_envs)
        obs, info = self.env.reset(seed=seed, options={**_options(self._goal), **options})
        self._steps[:], self._success_step[:], self._ended[:] = 0, -1, False
        return self._with_goal(obs), self._judge(info)

    def step(self, actions: Any) -> tuple[Any, NDArray, NDArray, NDArray, dict[str, Any]]:
        """One raw step of every row [N, ...]; rows that had ended start their next task instead."""
        restart = self._ended.copy()
        obs, reward, terminated, truncated, info = self.env.step(actions)
        self._steps += 1
        if restart.any():
            fresh, info = self._restart(restart, {"reset_mask": restart})
            obs = put_rows(self.single_observation_space, restart, fresh, self._with_goal(obs))
            reward = np.where(restart, 0.0, reward)
        else:
            obs, info = self._with_goal(obs), self._judge(info)
        stop = info["success"] if self.terminate_on_success else np.zeros_like(restart)
        terminated = (terminated | stop) & ~restart
        truncated = (truncated | (self._steps >= self._tasks.budget)) & ~restart
        self._ended = over(terminated, truncated)
        return obs, reward, terminated, truncated, info

    def _restart(self, mask: NDArray[np.bool_], options: dict[str, Any]) -> tuple[Any, dict]:
        assert self._goal is not None
        obs, info = self.env.reset(options={**_options(self._goal), **options})
        self._steps[mask], self._success_step[mask], self._ended[mask] = 0, -1, False
        return self._with_goal(obs), self._judge(info)

    def _with_goal(self, obs: Any) -> dict[str, Any]:
        assert self._goal is not None
        return {**flat_obs(obs), **{GOAL + key: v.copy() for key, v in self._goal.obs.items()}}

    def _judge(self, info: dict[str, Any]) -> dict[str, Any]:
        assert self._goal is not None
        info, every = dict(info), np.ones(self.num_envs, bool)
        if self._goal.state is not None:
            info |= {"goal_state": self._goal.state.copy(), "_goal_state": every}
        known = self._goal.state is not None
        success = np.asarray(self._tasks.judge(self.env.unwrapped, info, known), bool)
        first = success & (self._success_step < 0)
        self._success_step[first] = self._steps[first]
        info |= {"success": success, "_success": every}
        info |= {"at_goal": success.copy(), "_at_goal": every.copy()}
        return info | {"success_step": self._success_step.copy(), "_success_step": every.copy()}


def _goal_keys(goals: Goals | GoalSampler) -> Goals | None:
    """The goals whose keys decide the observation space; None where a sampler gives all keys."""
    if isinstance(goals, Goals):
        return goals
    key = getattr(goals, "key", None)
    return None if key is None else Goals({key: np.zeros(1)})
