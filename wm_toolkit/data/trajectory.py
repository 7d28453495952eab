"""One episode, and the one place where T actions and T + 1 observations become T + 1 rows.

Row t holds what the environment handed over at t and the action taken in response, so a reward stands
beside the observation it arrived with. The last row of an episode holds its final observation; no action
was taken there, and the column holds a filler (zeros, or the lowest choice of a discrete space). Which
rows are fillers follows from the episode lengths: the last one of every episode.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces as gs

from wm_toolkit.data.checks import (
    Problem,
    action_problems,
    column_problems,
    ending_problems,
    number_problems,
    raise_problems,
)
from wm_toolkit.errors import DataError
from wm_toolkit.spaces import Spaces

OBS = "obs/"
RESERVED = ("action", "reward", "terminated", "truncated")


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """The data of one episode of T steps, as environments and Minari hand it over.

    Attributes:
        obs: [T + 1, ...] per observation key (nested keys are joined by "/").
        action: [T, ...] raw environment actions; action[t] was taken in obs[t].
        reward: [T] reward that action[t] earned, or None where there is none.
        terminated: [T] the task ended with step t.
        truncated: [T] the episode was cut from outside after step t.
        extras: [T + 1, ...] anything else that comes with every observation, by name.
        info: about the whole episode, JSON-ready (seed, reset options ...).

    Example:
        >>> episode = Trajectory({"vector": np.zeros((3, 2))}, np.zeros((2, 1)), np.ones(2),
        ...                      np.array([False, True]), np.array([False, False]))
        >>> len(episode)
        2
    """

    obs: Mapping[str, np.ndarray]
    action: np.ndarray
    reward: np.ndarray | None
    terminated: np.ndarray
    truncated: np.ndarray
    extras: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        """T: how many actions were taken."""
        return len(self.action)

    def problems(self, spaces: Spaces) -> Iterator[Problem]:
        """Everything that is wrong with this episode, without file and episode number."""
        steps = len(self.action)
        for key in [
            *spaces.observation,
            *(key for key in self.obs if key not in spaces.observation),
        ]:
            if key not in self.obs:
                yield Problem(f"is missing; there are {sorted(self.obs)}", column=OBS + key)
            elif key not in spaces.observation:
                yield Problem("is not in the observation space", column=OBS + key)
            else:
                values = self.obs[key]
                yield from column_problems(OBS + key, values, spaces.observation[key], steps + 1)
                yield from number_problems(OBS + key, values, infinity=True)
        yield from column_problems("action", self.action, spaces.action, steps)
        yield from action_problems(self.action, spaces.action)
        yield from self._signal_problems(steps)
        for name, values in self.extras.items():
            if name in RESERVED or name.startswith(OBS):
                yield Problem("is a reserved name; rename the extra column", column=name)
            if len(values) != steps + 1:
                yield Problem(f"has {len(values)} rows, expected {steps + 1}", column=name)

    def _signal_problems(self, steps: int) -> Iterator[Problem]:
        flags = {"terminated": self.terminated, "truncated": self.truncated}
        signals = flags if self.reward is None else {**flags, "reward": self.reward}
        for column, values in signals.items():
            if values.shape != (steps,):
                yield Problem(f"has shape {values.shape}, expected ({steps},)", column=column)
        for column, values in flags.items():
            if values.dtype != np.bool_:
                yield Problem(f"has dtype {values.dtype}, expected bool", column=column)
        yield from ending_problems(flags)
        if self.reward is not None:
            # A reward arrives with the observation one row later.
            yield from number_problems("reward", self.reward, infinity=False, first_row=1)
            if self.reward.dtype.kind not in "fiu":
                yield Problem(f"has dtype {self.reward.dtype}, expected a number", column="reward")

    def validate(self, spaces: Spaces, *, file: str = "", episode: int | None = None) -> None:
        """Refuse an episode that does not fit its spaces.

        Raises:
            DataError: naming file, column, episode and row of the first problem.
        """
        raise_problems(
            dataclasses.replace(problem, file=file, episode=episode)
            for problem in self.problems(spaces)
        )

    def to_rows(self, action_space: gym.Space) -> dict[str, np.ndarray]:
        """The T + 1 rows [T + 1, ...] of every column."""
        filler = np.broadcast_to(
            filler_action(action_space).astype(self.action.dtype), (1, *self.action.shape[1:])
        )
        rows = {OBS + key: np.asarray(values) for key, values in self.obs.items()}
        rows["action"] = np.concatenate([self.action, filler])
        signals = {"terminated": self.terminated, "truncated": self.truncated}
        if self.reward is not None:
            signals["reward"] = self.reward
        for column, values in signals.items():
            rows[column] = np.concatenate([np.zeros(1, values.dtype), values])
        return rows | {name: np.asarray(values) for name, values in self.extras.items()}

    @classmethod
    def from_rows(
        cls, rows: Mapping[str, np.ndarray], info: Mapping[str, Any] | None = None
    ) -> Trajectory:
        """The inverse of `to_rows`: columns [T + 1, ...] to an episode whose arrays are views.

        Raises:
            DataError: if a column that every episode needs is missing.
        """
        for column in ("action", "terminated", "truncated"):
            if column not in rows:
                raise DataError(f"column {column!r} is missing; there are {sorted(rows)}")
        reward = rows["reward"][1:] if "reward" in rows else None
        return cls(
            {name.removeprefix(OBS): rows[name] for name in rows if name.startswith(OBS)},
            rows["action"][:-1],
            reward,
            rows["terminated"][1:],
            rows["truncated"][1:],
            {n: rows[n] for n in rows if n not in RESERVED and not n.startswith(OBS)},
            dict(info or {}),
        )


def filler_action(space: gym.Space) -> np.ndarray:
    """What stands in the action column where no action was taken, of the space's shape."""
    if isinstance(space, (gs.Discrete, gs.MultiDiscrete)):
        return np.asarray(space.start)
    return np.zeros(space.shape or (), space.dtype)
