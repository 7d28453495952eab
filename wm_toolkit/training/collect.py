"""Records any policy in any environment to a data set."""

from __future__ import annotations

import copy
import dataclasses
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from wm_toolkit.agents.agent import Agent, AgentState
from wm_toolkit.data.formats import Writer
from wm_toolkit.data.trajectory import Trajectory
from wm_toolkit.envs.action_block import split_block
from wm_toolkit.errors import ConfigError, DataError, SpaceError
from wm_toolkit.spaces import block_space, flat_obs

Progress = Callable[[int, int], None]
"""Called with episodes recorded and wanted."""


class Policy(Protocol):
    """Chooses raw environment actions for N rows."""

    def begin(self, seed: int, count: int) -> None:
        """N = `count` episodes begin; row i belongs to episode seed `seed + i`."""
        ...

    def act(self, obs: Any) -> NDArray:
        """Raw actions [N, ...] for a vector environment's observation."""
        ...


class RandomPolicy:
    """Uniform draws from the action space; row i's depend on its seed alone.

    Args:
        space: of one environment's action.
    """

    def __init__(self, space: gym.Space) -> None:
        self.space = space
        self._rows: list[gym.Space] = []

    def begin(self, seed: int, count: int) -> None:
        """A generator for every row."""
        self._rows = [copy.deepcopy(self.space) for _ in range(count)]
        for row, space in enumerate(self._rows):
            space.seed(seed + row)

    def act(self, obs: Any) -> NDArray:
        """[N, ...] one draw for every row."""
        return np.stack([space.sample() for space in self._rows])


class AgentPolicy:
    """An agent as a policy; it may explore.

    An agent that chooses blocks of k actions looks at every k-th observation and decides again when its
    block is used up, as in evaluation; every raw step is recorded.

    Args:
        agent: any agent.
        space: raw action space of one environment.
        explore: act to learn rather than to score.

    Raises:
        SpaceError: if the agent's actions are none of that environment's.
    """

    def __init__(self, agent: Agent, space: gym.Space, *, explore: bool = True) -> None:
        block = agent.spaces.block
        if block_space(space, block) != agent.spaces.action:
            raise SpaceError(
                f"the agent's action space is {agent.spaces.action} (block {block}), which does not fit "
                f"the environment's {space}"
            )
        self.agent, self.space, self.explore = agent, space, explore
        self._state: AgentState | None = None
        self._due: deque[NDArray] = deque()

    def begin(self, seed: int, count: int) -> None:
        """Forget, and seed the noise."""
        self._due.clear()
        self._state = self.agent.initial(count)
        self._first = np.ones(count, bool)
        self._noise = torch.Generator(self.agent.model.device).manual_seed(seed)

    def act(self, obs: Any) -> NDArray:
        """[N, ...] the next raw action of the agent's decisions."""
        if not self._due:
            self._due.extend(self._decide(obs))
        return self._due.popleft()

    def _decide(self, obs: Any) -> NDArray:
        """[block, N, ...] raw actions until the next decision."""
        assert self._state is not None
        decision, self._state = self.agent.act(
            obs, self._state, is_first=self._first, explore=self.explore, generator=self._noise
        )
        self._first = np.zeros_like(self._first)
        chosen = self.agent.spaces.decode_action(decision.action)
        if self.agent.spaces.block == 1:
            return chosen[None]
        return np.moveaxis(split_block(self.space, chosen, self.agent.spaces.block), 1, 0)


def collect(
    env: gym.Env | gym.vector.VectorEnv,
    policy: Policy,
    writer: Writer,
    *,
    episodes: int,
    seed: int = 0,
    max_steps: int | None = None,
    extras: Sequence[str] = (),
    progress: Progress | None = None,
) -> int:
    """Record whole episodes; a recording that was stopped goes on where it ended.

    Episode i is reset with `seed + i`, so it does not matter in how many starts, or (for `RandomPolicy`)
    in how many rows it was recorded.

    Args:
        env: all rows of a vector environment record at once, then all begin anew.
        policy: chooses raw actions.
        writer: an open writer of any format; what it has finished is not recorded again.
        episodes: how many the recording shall hold.
        seed: of the first episode.
        max_steps: cut an episode (truncated) after so many steps; None leaves that to the environment.
        extras: names of `info` entries to store with every observation.
        progress: told how many episodes are done.

    Returns:
        How many episodes were recorded now.

    Raises:
        ConfigError: if the environment hides an episode's last observation (same-step autoreset).
        DataError: if an extra is not in `info`.
    """
    rows = env if isinstance(env, gym.vector.VectorEnv) else SyncVectorEnv([lambda: env])
    if rows.metadata.get("autoreset_mode") == AutoresetMode.SAME_STEP:
        raise ConfigError(
            "with same-step autoreset the last observation of an episode is lost; use "
            "autoreset_mode=AutoresetMode.NEXT_STEP"
        )
    before = writer.finished
    while writer.finished < episodes:
        start = seed + writer.finished
        wanted = min(rows.num_envs, episodes - writer.finished)
        for recording in _round(rows, policy, start, wanted, max_steps, tuple(extras)):
            writer.add_episode(recording.trajectory())
        if progress is not None:
            progress(writer.finished, episodes)
    return writer.finished - before


@dataclasses.dataclass
class _Recording:
    """One episode while it happens."""

    seed: int
    obs: list[dict[str, NDArray]] = dataclasses.field(default_factory=list)
    extras: list[dict[str, NDArray]] = dataclasses.field(default_factory=list)
    action: list[NDArray] = dataclasses.field(default_factory=list)
    reward: list[float] = dataclasses.field(default_factory=list)
    terminated: list[bool] = dataclasses.field(default_factory=list)
    truncated: list[bool] = dataclasses.field(default_factory=list)

    @property
    def ended(self) -> bool:
        return bool(self.action) and (self.terminated[-1] or self.truncated[-1])

    def look(self, obs: Any, info: dict[str, Any], row: int, extras: tuple[str, ...]) -> None:
        """Take down what row `row` sees."""
        missing = [name for name in extras if name not in info]
        if missing:
            raise DataError(f"info has no {missing[0]!r} to record; it has {sorted(info)}")
        self.obs.append({key: np.array(value[row]) for key, value in flat_obs(obs).items()})
        self.extras.append({name: np.array(info[name][row]) for name in extras})

    def trajectory(self) -> Trajectory:
        """The episode as data sets store it."""
        return Trajectory(
            _stack(self.obs),
            np.stack(self.action),
            np.array(self.reward, np.float32),
            np.array(self.terminated),
            np.array(self.truncated),
            _stack(self.extras),
            {"seed": self.seed},
        )


def _round(
    env: gym.vector.VectorEnv,
    policy: Policy,
    seed: int,
    wanted: int,
    max_steps: int | None,
    extras: tuple[str, ...],
) -> list[_Recording]:
    """One episode in each of the first `wanted` rows."""
    seeds: Any = [seed + row for row in range(env.num_envs)]
    obs, info = env.reset(seed=seeds)
    policy.begin(seed, env.num_envs)
    recordings = [_Recording(seed + row) for row in range(wanted)]
    for row, recording in enumerate(recordings):
        recording.look(obs, info, row, extras)
    while not all(recording.ended for recording in recordings):
        action = policy.act(obs)
        obs, reward, terminated, truncated, info = env.step(action)
        for row, recording in enumerate(recordings):
            if recording.ended:
                continue
            recording.action.append(np.array(action[row]))
            recording.reward.append(float(reward[row]))
            recording.terminated.append(bool(terminated[row]))
            cut = max_steps is not None and len(recording.action) >= max_steps
            recording.truncated.append(bool(truncated[row]) or (cut and not terminated[row]))
            recording.look(obs, info, row, extras)
    return recordings


def _stack(rows: list[dict[str, NDArray]]) -> dict[str, NDArray]:
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}
