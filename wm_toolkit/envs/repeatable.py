"""Episodes that can be repeated from a few facts, so that a stopped run goes on in the middle of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from wm_toolkit.envs.rows import over

REPEATABLE = "repeatable"
"""Metadata of environments whose running episode can be repeated; also the reset option that does it."""


class RepeatableEpisodes(gym.Wrapper):
    """Seeds every episode by its number, and repeats one on request.

    An environment's own state cannot be saved in general. An episode follows from its seed and its
    actions, though, wherever the environment draws everything from its own generator.

    Args:
        env: outermost but for this.
        seed: of all episodes.
        row: which environment of a vector this is.

    Example:
        >>> env = RepeatableEpisodes(gym.make("CartPole-v1"), seed=0)
        >>> env.reset(options={"repeatable": [{"episode": 7, "actions": [0, 1, 1]}]})
    """

    def __init__(self, env: gym.Env, seed: int, row: int = 0) -> None:
        super().__init__(env)
        self.metadata = {**env.metadata, REPEATABLE: True}
        self.seed, self.row, self.episode = seed, row, -1
        self._waits = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin the next episode; with a seed, the first one of that seed.

        Args:
            seed: of all episodes from here on.
            options: "repeatable" holds {"episode": number, "actions": [t, ...]} for every environment of
                the vector: begin that episode and take those actions. Others go to the environment.
        """
        others = dict(options or {})
        parts: Sequence[Mapping[str, Any]] | None = others.pop(REPEATABLE, None)
        if seed is not None:
            self.seed, self.episode = seed, -1
        self.episode = self.episode + 1 if parts is None else int(parts[self.row]["episode"])
        obs, info = self.env.reset(seed=self._episode_seed(), options=others or None)
        self._waits = False
        for action in () if parts is None else parts[self.row]["actions"]:
            obs, _, terminated, truncated, info = self.env.step(action)
            self._waits = bool(over(terminated, truncated))
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step; behind a repeated episode that was over, the beginning of the next."""
        if self._waits:
            # The vector environment has not seen the end, so it does not reset.
            obs, info = self.reset()
            return obs, 0.0, False, False, info
        return self.env.step(action)

    def _episode_seed(self) -> int:
        """31 bits: what every package takes."""
        word = np.random.SeedSequence([self.seed, self.episode]).generate_state(1)[0]
        return int(word >> 1)
